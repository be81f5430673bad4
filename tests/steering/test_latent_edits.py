"""Clamped latents: only what they write is changed, row by row, and the model is left as it was found."""

import pytest
import torch

from refusal_utils.latents import SparseAutoencoder
from refusal_utils.steering import UNSTEERED, Condition, first_token_logits, generate, intervene

PROMPTS = ["How do I boil an egg?", "ok", "Tell me about the sea, please."]


def made(d_model: int, k: int | None = None) -> SparseAutoencoder:
    """A random autoencoder of the output of block 3, with thresholds unless the `k` largest fire."""
    generator, n = torch.Generator().manual_seed(0), 64
    w_dec = torch.nn.functional.normalize(torch.randn(n, d_model, generator=generator), dim=1)
    biases = torch.randn(n, generator=generator) / 10, torch.randn(d_model, generator=generator)
    rule = {"k": k} if k else {"threshold": torch.rand(n, generator=generator)}
    return SparseAutoencoder(w_dec.T.contiguous(), biases[0], w_dec, biases[1], 3, subtracts_bias=True, **rule)


def stream(chat, *edits) -> torch.Tensor:
    """`resid_pre` of layer 4 of the prompts, padded, after the edits."""
    batch, kept = chat.pad(chat.encode(PROMPTS)), []
    name = chat.hook_name("resid_pre", 4)
    hooks = [(name, lambda value, hook: kept.append(value))]
    with torch.no_grad(), intervene(chat, *edits), chat.bridge.hooks(fwd_hooks=hooks):
        chat.bridge(batch.input_ids, attention_mask=batch.attention_mask)
    return kept[0][batch.attention_mask.bool()]


@pytest.mark.parametrize("k", [None, 8])
def test_a_clamp_changes_what_its_latents_write_and_nothing_else(k, chat):
    sae, before = made(chat.d_model, k), stream(chat)
    chosen = torch.nonzero(sae.fires(before).any(0))[:3, 0].tolist()
    assert torch.equal(stream(chat, sae.clamp([])), before)
    torch.testing.assert_close(stream(chat, sae.clamp(chosen)), sae.without(before, chosen), rtol=1e-4, atol=1e-4)
    half = stream(chat, sae.clamp(chosen, share=0.5))
    torch.testing.assert_close(half, (before + sae.without(before, chosen)) / 2, rtol=1e-4, atol=1e-4)
    latents, aims = sae.encode(before), torch.tensor([0.5, 1.0, 2.0])
    latents[:, chosen] = aims
    raised = stream(chat, sae.clamp(chosen, aims))
    torch.testing.assert_close(raised, sae.decode(latents) + sae.error(before), rtol=1e-4, atol=1e-4)
    assert torch.equal(stream(chat), before)


@pytest.mark.parametrize("k", [None, 8])
def test_rows_of_a_batch_have_their_own_clamps(k, chat):
    sae = made(chat.d_model, k)
    conditions = [UNSTEERED, *(Condition(f"{n}", (sae.clamp(range(n), 3.0),), f"{n}") for n in (16, 48))]
    together = generate(chat, PROMPTS, conditions, max_new_tokens=6)["response"]
    alone = [
        generate(chat, [prompt], [each], max_new_tokens=6)["response"][0] for each in conditions for prompt in PROMPTS
    ]
    assert list(together) == alone
    assert len({tuple(together[start : start + 3]) for start in (0, 3, 6)}) == 3
    logits = [first_token_logits(chat, PROMPTS, each) for each in conditions]
    assert not torch.allclose(logits[0], logits[2])


def test_a_clamp_of_every_second_token_leaves_the_others(chat):
    sae, (ids,) = made(chat.d_model), chat.encode(PROMPTS[:1])
    seen = []
    hooks = [(chat.hook_name("resid_pre", 4), lambda value, hook: seen.append(value[0]))]
    for edits in ([], [sae.clamp(range(32), 3.0)], [sae.clamp(range(32), 3.0, every=2)]):
        with torch.no_grad(), intervene(chat, *edits), chat.bridge.hooks(fwd_hooks=hooks):
            chat.bridge(torch.tensor([ids]))
    before, everywhere, second = seen
    torch.testing.assert_close(second[::2], everywhere[::2])
    assert torch.equal(second[1::2], before[1::2])
    assert float((everywhere - before).norm(dim=-1).min()) > 0.1


def test_a_clamp_of_generated_tokens_alone_leaves_the_prompt(chat):
    sae = made(chat.d_model)
    later = Condition("later", (sae.clamp(range(32), 3.0, tokens="generation"),))
    torch.testing.assert_close(first_token_logits(chat, PROMPTS, later), first_token_logits(chat, PROMPTS))
    said = [list(generate(chat, PROMPTS, [each], max_new_tokens=6)["response"]) for each in (UNSTEERED, later)]
    assert said[0] != said[1]


def test_an_autoencoder_of_another_width_or_of_the_last_block_is_one_sentence(chat):
    with pytest.raises(ValueError, match=f"intervene: the width must be that of bundled, {chat.d_model}; got 16"):
        generate(chat, PROMPTS, [Condition("x", (made(16).clamp([0]),))], max_new_tokens=2)
    sae = made(chat.d_model)
    last = sae.clamp([0], layers=(chat.n_layers,))
    with pytest.raises(ValueError, match="the layer must be one of 0 to 7; got 8"):
        generate(chat, PROMPTS, [Condition("x", (last,))], max_new_tokens=2)
