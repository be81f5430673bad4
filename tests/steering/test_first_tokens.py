import pytest
import torch

from refusal_utils.steering import first_token_logits
from refusal_utils.steering.conditions import UNSTEERED, Condition
from refusal_utils.steering.first_tokens import kl_spent, refusal_logit, refusal_scores
from refusal_utils.steering.interventions import Ablation, Addition


@pytest.fixture(scope="module")
def conditions(direction):
    added = [Condition(f"+{size}", (Addition(size * direction, (4,)),), coefficient=size) for size in (5.0, 20.0)]
    return [UNSTEERED, *added, Condition("ablated", (Ablation(direction[None]),))]


def test_the_nats_spent_are_the_divergence_of_the_first_token(chat, prompts, conditions):
    before, *after = (first_token_logits(chat, prompts[:6], each).double().log_softmax(-1) for each in conditions)
    expected = [torch.nn.functional.kl_div(own, before, log_target=True, reduction="batchmean") for own in after]
    spent = kl_spent(chat, prompts[:6], conditions)
    assert spent[0] == pytest.approx(0, abs=1e-9)
    assert spent[1] < spent[2]
    assert spent[1:].tolist() == pytest.approx([float(each) for each in expected], rel=1e-3)


def test_refusal_scores_are_the_log_odds_of_the_tokens_under_every_condition(chat, prompts, conditions):
    tokens = first_token_logits(chat, prompts[:1])[0].topk(2).indices
    scores = refusal_scores(chat, prompts[:6], conditions, tokens)
    for own, condition in zip(scores, conditions, strict=True):
        p = first_token_logits(chat, prompts[:6], condition).double().softmax(-1)[:, tokens].sum(-1)
        torch.testing.assert_close(own, torch.logit(p), atol=2e-4, rtol=1e-4)
    assert float((scores - scores[0]).abs().amax(1)[1:].min()) > 1e-2  # before control
    alone = refusal_scores(chat, prompts[:2], conditions[:1], tokens[:1])
    p = first_token_logits(chat, prompts[:2]).double().softmax(-1)[:, tokens[0]]
    torch.testing.assert_close(alone[0], torch.logit(p), atol=2e-4, rtol=1e-4)
    with pytest.raises(ValueError, match=r"^refusal_scores: there must be tokens that open refusals; got none"):
        refusal_scores(chat, prompts[:1], conditions, tokens[:0])


def test_the_refusal_logit_is_that_of_arditi_et_al():
    logits = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p = logits.softmax(-1)[:, [1, 4]].sum(-1)
    torch.testing.assert_close(
        refusal_logit(logits, torch.tensor([1, 4])), torch.log(p + 1e-8) - torch.log(1 - p + 1e-8)
    )
