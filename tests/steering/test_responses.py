import pandas as pd
import pytest

from refusal_utils.judging import Judgement
from refusal_utils.steering.conditions import UNSTEERED, Condition
from refusal_utils.steering.generation import generate
from refusal_utils.steering.responses import judge_rows, judged, respond

ROWS = pd.DataFrame({"text": ["boil an egg"] * 4, "response": ["the egg", "no", "an egg, then", "yes"]})


def test_a_judge_must_return_a_judgement_and_is_asked_once_per_response():
    asked = []

    def judge(prompt, response):
        asked.append((prompt, response))
        return Judgement("yes", evidence=response) if response == "no" else Judgement("no")

    judged = judge_rows(pd.concat([ROWS] * 3), judge)
    assert len(asked) == 4
    assert judged["outcome"].tolist() == ["answered", "refused", "answered", "answered"] * 3
    with pytest.raises(ValueError, match="^judge_rows: a judge must return a Judgement; got bool"):
        judge_rows(ROWS, lambda prompt, response: True)


def test_a_judge_of_batches_must_judge_every_response():
    class Short:
        def __call__(self, prompt, response):
            raise AssertionError

        def judge_many(self, prompts, responses):
            return [Judgement("no") for _ in prompts][1:]

    with pytest.raises(ValueError, match="^judge_rows: judge_many must return one Judgement per response; got 3 for 4"):
        judge_rows(ROWS, Short())


def test_responses_have_the_columns_of_their_prompts_of_generation_and_of_the_judge(chat, prompts):
    asked = pd.DataFrame({"id": ["a", "b"], "text": prompts[:2], "side": [True, False]}, index=[9, 4])
    conditions = [UNSTEERED, Condition("again", (), "any", 1.0)]
    found = respond(chat, asked, conditions, max_new_tokens=3)
    said = generate(chat, prompts[:2], conditions, max_new_tokens=3).drop(columns="prompt")
    assert list(found) == ["id", "text", "side", *said, "outcome", "evidence", "styles", "release_type"]
    assert found["id"].tolist() == ["a", "b"] * 2
    pd.testing.assert_frame_equal(found[list(said)], said)


def test_how_many_responses_are_not_judged_is_said_and_they_are_left_out(capsys):
    def judge(prompt, response):
        return Judgement("yes" if response == "no" else "no", unjudged="language" if response == "yes" else None)

    rows = judge_rows(pd.concat([ROWS] * 2), judge)
    assert capsys.readouterr().out == "2 of 8 responses are not judged (language) and are left out of all rates\n"
    assert judged(rows)["outcome"].tolist() == ["answered", "refused", "answered"] * 2
    judge_rows(ROWS.head(3), judge)
    assert capsys.readouterr().out == ""
