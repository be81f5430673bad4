import pytest
import torch

from refusal_utils.directions import normalize
from refusal_utils.generation import generate
from refusal_utils.steering import ablate_direction, add_steering, written_hooks


@pytest.fixture(scope="module")
def direction(chat):
    return normalize(torch.randn(chat.d_model, generator=torch.Generator().manual_seed(5)))


def logits_of(chat, prompts):
    batch = chat.pad(chat.encode(prompts))
    with torch.inference_mode():
        return chat.bridge(batch.input_ids, attention_mask=batch.attention_mask)[:, -1]


class PlainEdit:
    """The same edit on a plain Hugging Face model, with torch hooks only."""

    def __init__(self, plain, layers, edit, outputs=False):
        self.handles = [
            plain.model.layers[layer].register_forward_pre_hook(self.before(edit), with_kwargs=True) for layer in layers
        ]
        if outputs:
            for block in plain.model.layers:
                self.handles.append(block.self_attn.register_forward_hook(lambda m, a, out: (edit(out[0]), *out[1:])))
                self.handles.append(block.mlp.register_forward_hook(lambda m, a, out: edit(out)))

    @staticmethod
    def before(edit):
        def hook(module, args, kwargs):
            if args:
                return (edit(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

        return hook

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()


def test_add_steering_equals_the_same_edit_in_plain_hugging_face(chat, prompts, plain, plain_ids, direction):
    unsteered = logits_of(chat, prompts[:6])
    with add_steering(chat, 4 * direction, layer=3):
        steered = logits_of(chat, prompts[:6])
    assert float((steered - unsteered).abs().max()) > 1e-2  # before control: the edit does something
    with PlainEdit(plain, [3], lambda hidden: hidden + 4 * direction), torch.no_grad():
        for prompt, row in zip(prompts[:6], steered, strict=True):
            torch.testing.assert_close(row, plain(plain_ids(prompt)).logits[0, -1], atol=1e-4, rtol=1e-4)


def test_steered_generation_equals_plain_hugging_face_token_for_token(chat, prompts, plain, plain_ids, direction):
    with add_steering(chat, 6 * direction, layer=4):
        ours = generate(chat, prompts[:6], max_new_tokens=20)
    with PlainEdit(plain, [4], lambda hidden: hidden + 6 * direction):
        for prompt, response in zip(prompts[:6], ours, strict=True):
            ids = plain_ids(prompt)
            out = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False)
            assert chat.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip() == response


def test_ablate_direction_equals_the_same_edit_in_plain_hugging_face(chat, prompts, plain, plain_ids, direction):
    with ablate_direction(chat, direction):
        ours = logits_of(chat, prompts[:6])

    def remove(hidden):
        return hidden - (hidden @ direction)[..., None] * direction

    with PlainEdit(plain, [0], remove, outputs=True), torch.no_grad():
        for prompt, row in zip(prompts[:6], ours, strict=True):
            torch.testing.assert_close(row, plain(plain_ids(prompt)).logits[0, -1], atol=1e-4, rtol=1e-4)


def test_ablate_direction_leaves_nothing_at_resid_post_of_any_layer(chat, prompts, direction):
    batch = chat.pad(chat.encode(prompts[:6]))
    names = [chat.hook_name("resid_post", layer) for layer in range(chat.n_layers)]

    def left():
        _, cache = chat.bridge.run_with_cache(batch.input_ids, attention_mask=batch.attention_mask, names_filter=names)
        return [float((cache[name] @ direction)[batch.attention_mask.bool()].abs().max()) for name in names]

    assert min(left()) > 1e-2  # before
    with ablate_direction(chat, direction):
        assert max(left()) < 1e-4


def test_ablate_direction_takes_several_directions_as_one_span(chat, prompts, direction):
    second = normalize(direction + 0.2 * torch.randn(chat.d_model, generator=torch.Generator().manual_seed(6)))
    with ablate_direction(chat, torch.stack([direction, second])):
        one_way = logits_of(chat, prompts[:3])
    with ablate_direction(chat, torch.stack([second, normalize(direction - second)])):
        other_way = logits_of(chat, prompts[:3])
    torch.testing.assert_close(one_way, other_way, atol=1e-3, rtol=1e-3)


def test_alpha_zero_is_the_identity(chat, prompts, direction):
    before = logits_of(chat, prompts[:3])
    with add_steering(chat, 0 * direction):
        assert torch.equal(logits_of(chat, prompts[:3]), before)


@pytest.mark.parametrize("intervention", [add_steering, ablate_direction])
@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_leaving_an_intervention_restores_the_logits_bitwise(chat, prompts, direction, intervention, error):
    before = logits_of(chat, prompts[:3])
    try:
        with intervention(chat, direction):
            assert not torch.equal(logits_of(chat, prompts[:3]), before)
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt):
        pass
    assert torch.equal(logits_of(chat, prompts[:3]), before)


def test_written_hooks_names_every_place_where_the_stream_is_written(chat):
    assert len(written_hooks(chat)) == 1 + 2 * chat.n_layers


def test_interventions_reject_vectors_of_another_model(chat, direction):
    with pytest.raises(ValueError, match=f"add_steering: the width must be that of bundled, {chat.d_model}; got 7"):
        add_steering(chat, torch.ones(7)).__enter__()
    with pytest.raises(ValueError, match="ablate_direction: a direction must have norm 1; got norm 3"):
        ablate_direction(chat, 3 * direction).__enter__()
    with pytest.raises(ValueError, match="the layer must be one of"):
        add_steering(chat, direction, layer=99).__enter__()
