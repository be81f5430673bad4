import pandas as pd
import pytest

from refusal_utils.judging import Judgement
from refusal_utils.steering.responses import judge_rows

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
