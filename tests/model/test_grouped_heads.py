"""Products in groups of heads are those with repeated keys and values."""

import pytest
import torch
from transformers.models.llama import modeling_llama

from refusal_utils.model.grouped_heads import GroupedStates, grouped_heads
from refusal_utils.model.plain_forward import plain_forward

repeat_kv = modeling_llama.repeat_kv
NOT_REPEATED = {"phi3"}  # its attention is that of transformers


def drawn(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape) + shape[-1])).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("n_pos", [1, 5])
def test_products_are_those_with_the_repeated_states(dtype, n_pos):
    states = drawn(3, 2, 7, 8, dtype=dtype)
    grouped, repeated = GroupedStates(states, 3), repeat_kv(states, 3)
    queries, weights = drawn(3, 6, n_pos, 8, dtype=dtype), drawn(3, 6, n_pos, 7, dtype=dtype)
    for left, right, wanted in (
        (queries, grouped.transpose(-2, -1), repeated.transpose(-2, -1)),
        (weights, grouped, repeated),
    ):
        assert right.shape == wanted.shape
        torch.testing.assert_close(right.repeated(), wanted, atol=0, rtol=0)
        for product in (torch.matmul(left, right), left @ right):
            torch.testing.assert_close(product, left @ wanted, atol=1e-5 if dtype == torch.float32 else 0, rtol=0)


def test_anything_else_is_done_to_the_repeated_states():
    states = drawn(2, 2, 5, 4)
    grouped, repeated = GroupedStates(states, 2), repeat_kv(states, 2)
    assert grouped.ndim == 4
    torch.testing.assert_close(torch.add(grouped, 1), repeated + 1)
    torch.testing.assert_close(grouped.transpose(1, 2), repeated.transpose(1, 2))
    torch.testing.assert_close(grouped.sum(-1), repeated.sum(-1))
    torch.testing.assert_close(torch.matmul(drawn(5), grouped), drawn(5) @ repeated)


def test_a_model_computes_the_same_without_one_copy(random_chat, prompts, monkeypatch):
    batch = random_chat.pad(random_chat.encode(prompts[:3]))
    made = []
    monkeypatch.setattr(modeling_llama, "repeat_kv", lambda states, n: made.append(n) or repeat_kv(states, n))

    @torch.inference_mode()
    def logits():
        model, (ids, mask) = random_chat.bridge.original_model, batch
        past = plain_forward(model, ids[:, :-1], mask[:, :-1], use_cache=True).past_key_values
        return plain_forward(model, ids[:, -1:], mask, past_key_values=past, use_cache=True).logits

    wanted = logits()
    repeats = random_chat.bridge.original_model.config.model_type not in NOT_REPEATED
    assert len(made) == repeats * 4 * random_chat.n_layers  # before control: keys and values, twice in every layer
    monkeypatch.setattr(GroupedStates, "repeated", lambda self: pytest.fail("repeated"))
    with grouped_heads():
        found = logits()
    assert len(made) == repeats * 4 * random_chat.n_layers
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    logits()
    assert len(made) == repeats * 8 * random_chat.n_layers  # afterwards as before
