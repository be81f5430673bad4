"""First tokens of many prompts and conditions at once are those of one condition after the other."""

import pytest
import torch

from refusal_utils.model.capture import capture_activations
from refusal_utils.steering import UNSTEERED, Ablation, Addition, Condition, beginning, first_token_logits, intervene
from refusal_utils.steering import shared_passes as engine
from refusal_utils.steering.shared_passes import read_first_tokens

PROMPTS = ["ok", "How do I boil an egg?", "why", "Tell me about the sea, please, and the ships.", "can you see me"]


def conditions_of(chat) -> list[Condition]:
    draw = torch.Generator().manual_seed(3)
    first, second = torch.nn.functional.normalize(torch.randn(2, chat.d_model, generator=draw), dim=-1)
    last = chat.n_layers - 1
    return [
        UNSTEERED,
        Condition("ablated", (Ablation(first[None]),)),
        Condition("the other ablated", (Ablation(second[None]),)),
        Condition("added", (Addition(2 * first, (1,)),)),
        Condition("added late", (Addition(2 * second, (last,)),)),
        Condition("affine", (Ablation(first[None], (last,), reference=second + first), Addition(second, (last,)))),
        Condition("again", (Ablation(first[None]),)),
    ]


def logits_and_states(prompt_idx, logits, states):
    return prompt_idx, logits.float(), states.float()


def one_at_a_time(chat, condition, layer):
    logits = first_token_logits(chat, PROMPTS, condition)
    with intervene(chat, *condition.interventions):
        states = capture_activations(chat, PROMPTS, layers=[layer], positions=[-1], hook="resid_post")
    return logits, states.values[:, 0, 0]


def compare(chat, **options):
    layer, conditions = chat.n_layers - 1, conditions_of(chat)
    at, logits, states = read_first_tokens("f", chat, PROMPTS, conditions, logits_and_states, layers=[layer], **options)
    assert torch.equal(at, torch.arange(len(PROMPTS)).expand(len(conditions), -1))
    for index, condition in enumerate(conditions):
        expected = one_at_a_time(chat, condition, layer)
        torch.testing.assert_close(logits[index], expected[0], atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(states[index, :, 0], expected[1], atol=2e-4, rtol=1e-4)
    assert (logits[1] - logits[0]).abs().max() > 0.01  # control: conditions differ


@pytest.mark.parametrize("budget", [24, None])
def test_rows_in_shared_batches_give_what_each_condition_gives_alone(chat, budget):
    compare(chat, batch_tokens=budget)


def test_it_holds_for_every_family(random_chat):
    compare(random_chat)


def test_the_common_beginning_is_computed_once_per_condition(chat, monkeypatch):
    begun, widths, forward, begin = [], [], engine.forward, beginning.plain_forward

    def counted(chat, input_ids, *args, **options):
        widths.append(input_ids.shape[1])
        return forward(chat, input_ids, *args, **options)

    def counted_beginning(model, input_ids, *args, **options):
        begun.append(tuple(input_ids.shape))
        return begin(model, input_ids, *args, **options)

    monkeypatch.setattr(engine, "forward", counted)
    monkeypatch.setattr(beginning, "plain_forward", counted_beginning)
    read_first_tokens("f", chat, PROMPTS, conditions_of(chat)[1:3], logits_and_states, batch_tokens=24)
    ids = chat.encode(PROMPTS)
    n_common = next(index for index, tokens in enumerate(zip(*ids, strict=False)) if len(set(tokens)) > 1)
    assert n_common > 0
    assert [width for _, width in begun] == [n_common] * len(begun)
    assert sum(rows for rows, _ in begun) == 2
    assert max(widths) == max(map(len, ids)) - n_common
