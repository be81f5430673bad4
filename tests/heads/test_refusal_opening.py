import pandas as pd
import pytest
import torch

from refusal_utils.heads.refusal_opening import RefusalOpening
from refusal_utils.heads.shares import logit_shares
from refusal_utils.prompts.categories import BENIGN


def responses(refused, answered):
    """Responses by category; the answers are those to benign prompts."""
    rows = [(category, text, "refused") for category, texts in refused.items() for text in texts]
    rows += [(BENIGN, text, "answered") for text in answered]
    return pd.DataFrame(rows, columns=["category", "response", "outcome"])


@pytest.fixture(scope="module")
def opening(chat):
    refused = {
        "advice": ["Sorry, no."] * 5 + ["I cannot say."],
        "hate_speech": ["I cannot say."] * 3 + ["Rain is wet."],
    }
    refused |= {"unsupported": ["Rain is wet.", ""]}
    return RefusalOpening.from_responses(chat, responses(refused, ["Sure, a kettle.", "Rain is wet.", "I can tell."]))


def test_opening_tokens_are_those_of_refusals_and_not_of_answers(chat, opening):
    first = [chat.tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in ("Sorry, no.", "I cannot say.")]
    assert opening.tokens.tolist() == first
    assert opening.words == tuple(map(chat.tokenizer.decode, first))
    share = opening.table().iloc[:, 0]
    assert share[["advice", "hate_speech", "unsupported"]].tolist() == [1, 0.75, 0]
    assert share.isna().sum() == 8  # categories that refused nothing
    assert opening.categories == ["hate_speech", "advice"]  # in the order of the eleven
    assert opening.of_answers == pytest.approx(1 / 3)  # "I can tell."
    assert "also open 33% of the answers" in str(opening)


def test_a_marker_in_a_response_is_read_as_the_text_that_it_is(chat):
    marker = chat.tokenizer.convert_tokens_to_ids("<|end|>")
    assert chat.tokenizer("<|end|> No.", add_special_tokens=False)["input_ids"][0] == marker  # before control
    opening = RefusalOpening.from_responses(chat, responses({"advice": ["<|end|> No."]}, ["Sure."]))
    assert marker not in opening.tokens
    assert len(opening.tokens) == 1


@pytest.mark.parametrize("refused", [{"advice": ["Sure"]}, {}])
def test_nothing_is_measured_if_refusals_begin_as_answers_do_or_there_are_none(chat, refused):
    none = RefusalOpening.from_responses(chat, responses(refused, ["Sure"]))
    assert (none.words, none.categories) == ((), [])
    assert none.logit(torch.randn(3, 5)).isnan().all()
    assert none.push(chat, pd.DataFrame(), k=2).isna().all()
    assert str(none).startswith("none: refusals begin as answers do")


def test_the_best_categories_are_read_if_the_tokens_open_less_than_half_of_any(chat):
    refused = {"advice": ["Sorry"] * 2 + ["", "", ""], "hate_speech": ["Sorry"] + [""] * 3}
    assert RefusalOpening.from_responses(chat, responses(refused, ["Sure"])).categories == ["advice"]


def test_the_logit_is_the_log_odds_of_the_opening_tokens():
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    opening = RefusalOpening(torch.tensor([0, 2]), ("a", "c"), pd.Series(dtype=float))
    p = logits.softmax(-1)[0, [0, 2]].sum()
    assert float(opening.logit(logits)) == pytest.approx(float(torch.logit(p)), rel=1e-5)


def test_push_is_the_difference_of_logit_shares_of_refused_and_benign_prompts(chat, prompts, opening, monkeypatch):
    frame = pd.DataFrame({"text": prompts[:18], "category": ["advice", "hate_speech", BENIGN] * 6})
    monkeypatch.setattr("refusal_utils.heads.refusal_opening.N_PUSHED", 4)
    push = opening.push(chat, frame, k=2)
    assert len(push) == 4
    rows = [[row for row in range(12) if (row % 3 == 2) == benign] for benign in (False, True)]
    refused, benign = (logit_shares(chat, [prompts[row] for row in own], opening.tokens) for own in rows)
    heads = (refused.heads.mean(0) - benign.heads.mean(0))[..., 0]
    assert push["all heads"] == pytest.approx(float(heads.sum()), abs=1e-4)
    assert push.iloc[0] == pytest.approx(float(heads.max()), abs=1e-4)
    assert push["all MLPs"] == pytest.approx(
        float(refused.mlps.sum((1, 2)).mean() - benign.mlps.sum((1, 2)).mean()), abs=1e-4
    )
