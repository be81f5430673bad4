import pytest
import torch

from refusal_utils.model.forward import read_hooks


def test_read_hooks_returns_what_plain_hugging_face_computes(chat, prompts, plain, plain_ids):
    names = [chat.hook_name("resid_pre", layer) for layer in (5, 2)]
    with torch.no_grad():
        kept = read_hooks(chat, chat.pad(chat.encode(prompts[:1])), names, lambda name, value: value)
        states = plain(plain_ids(prompts[0]), output_hidden_states=True).hidden_states
    for name, layer in zip(names, (5, 2), strict=True):
        torch.testing.assert_close(kept[name], states[layer], atol=1e-4, rtol=1e-4)


def test_nothing_above_the_deepest_hook_is_computed_and_no_hook_stays(chat, prompts):
    batch, ran = chat.pad(chat.encode(prompts[:2])), []
    handles = [
        block.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
        for layer, block in enumerate(chat.bridge.blocks)
    ]
    read_hooks(chat, batch, [chat.hook_name("resid_pre", 3)], lambda name, value: value[:, -1])
    assert ran == [0, 1, 2]
    chat.bridge(batch.input_ids, attention_mask=batch.attention_mask)
    assert ran[3:] == list(range(chat.n_layers))  # before control: a whole forward pass, no longer stopped
    for handle in handles:
        handle.remove()


def test_an_error_in_keep_is_raised_and_no_hook_stays(chat, prompts):
    def keep(name, value):
        raise ValueError("no such shape")

    with pytest.raises(ValueError, match="no such shape"):
        read_hooks(chat, chat.pad(chat.encode(prompts[:1])), [chat.hook_name("resid_pre", 0)], keep)
    assert not any(point.fwd_hooks for point in chat.bridge.hook_dict.values())
