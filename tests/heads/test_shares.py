"""Head shares are exact on every architecture, checked through plain Hugging Face."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from refusal_utils.directions.estimation import normalize
from refusal_utils.heads.shares import component_shares, logit_shares, tolerance
from refusal_utils.model.batching import plan_batches
from refusal_utils.model.capture import capture_activations
from refusal_utils.model.chat_model import load_chat_model


def draw_directions(n, d_model):
    return normalize(torch.randn(n, d_model, generator=torch.Generator().manual_seed(1)))


def whole(shares):
    return torch.stack([*shares.parts().values()]).sum(0)


def plain_head_shares(folder, ids, directions, layer, pos):
    """One prompt through plain Hugging Face: every head alone through the output matrix and the norm as it was then."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    seen = {}
    for number, block in enumerate(model.model.layers[:layer]):
        block.self_attn.o_proj.register_forward_pre_hook(
            lambda m, args, n=number: seen.update({("z", n): args[0][0, pos]})
        )
        if hasattr(block, "post_feedforward_layernorm"):  # a norm between the attention and the stream
            block.post_attention_layernorm.register_forward_hook(
                lambda m, args, out, n=number: seen.update({("in", n): args[0][0, pos]})
            )
    with torch.no_grad():
        model(torch.tensor([ids]))
    shares = torch.zeros(layer, model.config.num_attention_heads, len(directions))
    for number, block in enumerate(model.model.layers[:layer]):
        weight = block.self_attn.o_proj.weight
        width = weight.shape[1] // shares.shape[1]
        for head in range(shares.shape[1]):
            part = slice(head * width, (head + 1) * width)
            written = weight[:, part] @ seen["z", number][part]
            if ("in", number) in seen:
                norm, whole = block.post_attention_layernorm, seen["in", number]
                gain = norm.weight + 1 if "Gemma" in type(norm).__name__ else norm.weight
                eps = getattr(norm, "eps", None) or norm.variance_epsilon
                written = written * gain / (whole.square().mean() + eps).sqrt()
            shares[number, head] = directions @ written.detach()
    return shares


def test_shares_sum_to_the_whole_on_every_architecture(random_chat, prompts):
    chat = random_chat
    directions = draw_directions(11, chat.d_model)
    for layer in (2, 3):
        found = component_shares(chat, prompts[:10], directions, layer=layer, pos=-1)
        assert found.heads.shape == (10, layer, 4, 11)
        largest = float(found.total.abs().max())
        assert float((whole(found) - found.total).abs().max()) < 1e-4 * largest
        without_heads = whole(found) - found.heads.sum((1, 2))
        assert float((without_heads - found.total).abs().max()) > 1e-2 * largest  # before control
    states = capture_activations(chat, prompts[:10], layers=[2], positions=[-1]).at(2, -1)
    total = component_shares(chat, prompts[:10], directions, layer=2, pos=-1).total
    torch.testing.assert_close(total, states @ directions.T, atol=1e-4, rtol=1e-4)


def test_head_shares_equal_plain_hugging_face_on_every_architecture(random_folder, random_chat, prompts):
    chat = random_chat
    directions = draw_directions(3, chat.d_model)
    found = component_shares(chat, prompts[:4], directions, layer=3, pos=-1)
    for row, ids in enumerate(chat.encode(prompts[:4])):
        expected = plain_head_shares(random_folder, ids, directions, 3, -1)
        torch.testing.assert_close(found.heads[row], expected, atol=2e-4, rtol=2e-4)


def test_shares_in_bfloat16_are_those_of_float32_up_to_its_rounding(random_folder, random_chat, prompts):
    exact, half = random_chat, load_chat_model(random_folder, device="cpu", dtype="bfloat16")
    directions = draw_directions(11, exact.d_model)
    expected, found = (component_shares(chat, prompts[:6], directions, layer=2, pos=-1) for chat in (exact, half))
    size = float(expected.total.abs().max())
    assert found.heads.dtype == torch.float32
    gap = float((whole(found) - found.total).abs().max()) / size
    assert 1e-4 < gap < tolerance(half.dtype)  # before control: the bound of float32 does not hold
    assert float((whole(expected) - expected.total).abs().max()) < tolerance(exact.dtype) * size
    for name in ("heads", "mlps", "total"):
        assert float((getattr(found, name) - getattr(expected, name)).abs().max()) < 0.1 * size


def test_biases_have_shares_of_their_own_where_a_matrix_has_one(random_folder, random_chat, prompts):
    chat = random_chat
    plain = AutoModelForCausalLM.from_pretrained(random_folder, dtype=torch.float32).eval()
    directions = draw_directions(3, chat.d_model)
    found = component_shares(chat, prompts[:4], directions, layer=3, pos=-1)
    dense = hasattr(plain.model.layers[0].mlp, "down_proj")  # no experts, none of which has a bias
    expected = torch.zeros(3, 3)
    for block, own in zip(plain.model.layers, expected, strict=False):
        for bias in (block.self_attn.o_proj.bias, block.mlp.down_proj.bias if dense else None):
            own += 0 if bias is None else directions @ bias.detach()
    torch.testing.assert_close(found.biases, expected.expand(4, 3, 3), atol=1e-5, rtol=1e-4)
    assert (found.biases.abs().max() > 0.1) == (
        getattr(plain.config, "mlp_bias", False) or getattr(plain.config, "attention_bias", False)
    )


def test_shares_do_not_depend_on_the_batch_and_keep_the_order(chat, prompts):
    directions = draw_directions(2, chat.d_model)
    together = component_shares(chat, prompts[:12], directions)
    small = component_shares(chat, prompts[:12], directions, batch_tokens=60)
    torch.testing.assert_close(together.heads, small.heads, atol=1e-4, rtol=1e-4)
    alone = component_shares(chat, prompts[5:6], directions)
    torch.testing.assert_close(together.heads[5:6], alone.heads, atol=1e-4, rtol=1e-4)
    scaled = together.scaled(torch.arange(12.0))
    torch.testing.assert_close(whole(scaled)[3], 3 * whole(together)[3], atol=1e-4, rtol=1e-4)


def test_bad_requests_name_what_must_hold(chat, prompts):
    directions = draw_directions(2, chat.d_model)
    with pytest.raises(ValueError, match="^component_shares: directions must have the width of bundled, 192; got 7"):
        component_shares(chat, prompts[:2], directions[:, :7])
    with pytest.raises(ValueError, match="^component_shares: the layer must be one of 1 to 8; got 0"):
        component_shares(chat, prompts[:2], directions, layer=0)
    with pytest.raises(ValueError, match="^component_shares: directions must be finite"):
        component_shares(chat, prompts[:2], directions * float("inf"))
    with pytest.raises(ValueError, match="^component_shares: positions must "):
        component_shares(chat, prompts[:2], directions, pos=-40)


def test_an_architecture_without_head_outputs_is_named(chat, prompts, monkeypatch):
    component_shares(chat, prompts[:2], draw_directions(1, chat.d_model))  # before control: it has them now
    monkeypatch.delitem(chat.bridge.blocks[1].attn._modules, "o")
    with pytest.raises(
        ValueError,
        match="^component_shares: the architecture must have per-head outputs; got LlamaForCausalLM, whose layer 1",
    ):
        component_shares(chat, prompts[:2], draw_directions(1, chat.d_model))


def test_activations_that_are_not_finite_are_named(chat, prompts):
    name = chat.hook_name("mlp_out", 1)
    spoiled = plan_batches(chat.encode(prompts[:4]), 4096)[0][2]

    def spoil(value, hook):
        value = value.clone()
        value[2] = float("nan")
        return value

    with (
        chat.bridge.hooks(fwd_hooks=[(name, spoil)]),
        pytest.raises(
            ValueError,
            match=f"^component_shares: activations must be finite; got NaN or inf for prompt {spoiled} at blocks.1",
        ),
    ):
        component_shares(chat, prompts[:4], draw_directions(1, chat.d_model))


def test_logit_shares_sum_to_the_logits_of_plain_hugging_face(random_folder, random_chat, prompts):
    chat = random_chat
    plain = AutoModelForCausalLM.from_pretrained(random_folder, dtype=torch.float32).eval()
    plain.config.final_logit_softcapping = None  # Gemma-2 caps logits after the sum
    tokens = torch.tensor([30, 40, 50])
    found = logit_shares(chat, prompts[:5], tokens)
    for row, ids in enumerate(chat.encode(prompts[:5])):
        with torch.no_grad():
            logits = plain(torch.tensor([ids])).logits[0, -1]
        expected = float(logits[tokens].mean() - logits.mean())
        assert float(whole(found)[row, 0]) == pytest.approx(expected, abs=1e-3 * float(logits.abs().max()))
