"""Whoever hooks the model, and however: nothing is stored, and nothing is attributed to its weights."""

import types
from contextlib import contextmanager

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from refusal_utils.heads.shares import component_shares
from refusal_utils.model.capture import capture_activations
from refusal_utils.model.open_hooks import open_hooks
from refusal_utils.steering.generation import generate
from tests.contexts import ablate_direction, add_steering


@contextmanager
def removed_later(handle):
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def patched_forward(module):
    original = type(module).forward
    module.forward = types.MethodType(lambda self, *args, **options: 2 * original(self, *args, **options), module)
    try:
        yield
    finally:
        del module.forward


def double(module, args, out=None):
    return None


@contextmanager
def patched_class(module):
    kind, original = type(module), type(module).forward
    kind.forward = lambda self, *args, **options: 2 * original(self, *args, **options)
    try:
        yield
    finally:
        kind.forward = original


WAYS = {
    "our addition": lambda chat, model: add_steering(chat, 50 * torch.ones(chat.d_model)),
    "our ablation": lambda chat, model: ablate_direction(chat, torch.eye(chat.d_model)[0]),
    "bridge": lambda chat, model: chat.bridge.hooks(fwd_hooks=[(chat.hook_name("z", 2), lambda value, hook: None)]),
    "submodule": lambda chat, model: removed_later(
        model.model.layers[3].mlp.down_proj.original_component.register_forward_hook(double)
    ),
    "block": lambda chat, model: removed_later(model.model.layers[1].register_forward_pre_hook(double)),
    "whole model": lambda chat, model: removed_later(model.register_forward_hook(double)),
    "every module": lambda chat, model: removed_later(register_module_forward_hook(lambda *_: None)),
    "before every module": lambda chat, model: removed_later(register_module_forward_pre_hook(lambda *_: None)),
    "autocast": lambda chat, model: torch.autocast("cpu", torch.bfloat16),
    "class": lambda chat, model: patched_class(model.model.layers[4].mlp.original_component),
    "forward": lambda chat, model: patched_forward(model.model.layers[4].mlp.up_proj.original_component),
}


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_stored_while_anything_is_hooked(chat, prompts, tmp_path, way):
    assert open_hooks(chat) == []  # before control: the bridge's own hooks do not count
    with WAYS[way](chat, chat.bridge.original_model):
        capture_activations(chat, prompts[:1], layers=[7])
        generate(chat, prompts[:1], max_new_tokens=1)
        for work in (capture_activations, generate):
            with pytest.raises(ValueError, match=f"^{work.__name__}: no other hook may be open.* got an open hook at "):
                work(chat, prompts[:1], cache_dir=tmp_path)
        with pytest.raises(ValueError, match="^component_shares: "):
            component_shares(chat, prompts[:1], torch.eye(chat.d_model)[:1])
    assert list(tmp_path.iterdir()) == []
    assert open_hooks(chat) == []


def test_backward_hooks_and_those_of_transformers_leave_activations_alone(chat, prompts, tmp_path):
    model = chat.bridge.original_model
    with torch.inference_mode():
        model(torch.tensor([[1, 5]]), output_hidden_states=True)
    with removed_later(model.model.norm.register_full_backward_hook(lambda *_: None)):
        assert capture_activations(chat, prompts[:1], cache_dir=tmp_path).n_captured == 1


def test_nothing_is_stored_in_training_mode_whose_dropout_is_random(chat, prompts, tmp_path):
    chat.bridge.original_model.train()
    try:
        with pytest.raises(ValueError, match="^capture_activations: the model must be in evaluation mode"):
            capture_activations(chat, prompts[:1], cache_dir=tmp_path)
    finally:
        chat.bridge.original_model.eval()
    assert capture_activations(chat, prompts[:1], cache_dir=tmp_path).n_captured == 1
