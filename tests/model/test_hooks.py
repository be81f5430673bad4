"""Hooks that are open for a while act as those of TransformerLens and leave nothing behind."""

import pytest
import torch

from refusal_utils.model.hooks import open_hooks


def logits(chat, prompts):
    batch = chat.pad(chat.encode(prompts[:2]))
    with torch.inference_mode():
        return chat.bridge(batch.input_ids, attention_mask=batch.attention_mask)


def halved(value, hook):
    return value / 2


def is_clean(chat):
    return not any(point.fwd_hooks for point in chat.bridge.hook_dict.values()) and chat.bridge.context_level == 0


def test_the_hooks_act_as_those_of_the_bridge(chat, prompts):
    before = logits(chat, prompts)
    hooks = [(name, halved) for name in (chat.hook_name("resid_pre", 2), chat.hook_name("z", 4))]
    with chat.bridge.hooks(fwd_hooks=hooks):
        wanted = logits(chat, prompts)
    with open_hooks(chat, hooks):
        found = logits(chat, prompts)
    torch.testing.assert_close(found, wanted, atol=0, rtol=0)
    assert not torch.allclose(found, before, atol=1e-2)
    torch.testing.assert_close(logits(chat, prompts), before, atol=0, rtol=0)
    assert is_clean(chat)


@pytest.mark.parametrize("outer_is_own", [True, False])
def test_of_two_at_one_point_the_inner_one_ends_first_and_alone(chat, prompts, outer_is_own):
    seen: list[str] = []
    name = chat.hook_name("resid_pre", 1)
    outer, inner = [(name, lambda *_, hook: seen.append("outer"))], [(name, lambda *_, hook: seen.append("inner"))]
    outside = open_hooks(chat, outer) if outer_is_own else chat.bridge.hooks(fwd_hooks=outer)
    with outside:
        with open_hooks(chat, inner):
            logits(chat, prompts)
        logits(chat, prompts)
    assert seen == ["outer", "inner", "outer"]
    assert is_clean(chat)


def test_a_hook_that_was_there_before_stays(chat, prompts):
    seen: list[int] = []
    name = chat.hook_name("resid_pre", 1)
    chat.bridge.add_hook(name, lambda value, hook: seen.append(0))
    with open_hooks(chat, [(name, halved)]):
        pass
    logits(chat, prompts)
    assert seen == [0]
    chat.bridge.reset_hooks()


def test_errors_leave_no_hook(chat, prompts):
    name = chat.hook_name("resid_pre", 0)
    with pytest.raises(ZeroDivisionError), open_hooks(chat, [(name, halved)]):
        raise ZeroDivisionError
    with pytest.raises(KeyError, match="hook_resid_pree"), open_hooks(chat, [(name, halved), (f"{name}e", halved)]):
        pass
    with pytest.raises(ValueError, match="use_attn_result"), open_hooks(chat, [("blocks.0.attn.hook_result", halved)]):
        pass
    assert is_clean(chat)


def test_the_models_hook_points_are_looked_up_once(chat, prompts, monkeypatch):
    logits(chat, prompts)
    assert chat.hook_points.keys() == chat.bridge.hook_dict.keys()
    looked = []
    own = type(chat.bridge).hook_dict.fget
    monkeypatch.setattr(type(chat.bridge), "hook_dict", property(lambda self: looked.append(0) or own(self)))
    with open_hooks(chat, [(chat.hook_name("resid_pre", layer), halved) for layer in range(chat.n_layers)]):
        pass
    assert looked == []
    with chat.bridge.hooks(fwd_hooks=[(chat.hook_name("resid_pre", 0), halved)]):
        assert looked  # before control: the bridge looks
