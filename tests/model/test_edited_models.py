"""A cached state is of exactly this model, as it is now."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from refusal_utils.model.capture import capture_activations
from refusal_utils.model.chat_model import load_chat_model
from refusal_utils.steering.generation import generate


class Adapter(nn.Module):
    """A low-rank adapter around a matrix, with a switch, as peft has it."""

    def __init__(self, base, scale=3.0):
        super().__init__()
        self.base, self._disabled, self.scaling = base, False, {"default": scale}
        self.a, self.b = nn.Linear(base.in_features, 2, bias=False), nn.Linear(2, base.out_features, bias=False)

    def forward(self, value):
        return self.base(value) + (0 if self._disabled else self.scaling["default"] * self.b(self.a(value)))


def edits(model):
    """(name, edit) one after the other; each changes what the model computes."""
    block = model.model.layers[2].original_component
    weight, rare = block.mlp.down_proj.original_component.weight, model.get_input_embeddings().weight
    adapter = Adapter(block.mlp.down_proj.original_component)
    state = {name: 1.01 * value for name, value in model.state_dict().items() if value.is_floating_point()}
    yield "in place", lambda: weight.mul_(1.5)
    yield "behind torch's back", lambda: weight.data.mul_(1.5)
    yield "one entry", lambda: rare.data[4000].view(-1)[7:8].add_(1e-6)
    yield "rows swapped", lambda: weight.data.copy_(weight.data.flip(0))
    yield "storage replaced", lambda: setattr(weight, "data", 2 * weight.data)
    yield "state loaded", lambda: model.load_state_dict(state, strict=False)
    yield "adapter added", lambda: setattr(block.mlp.down_proj, "_original_component", adapter)
    yield "adapter switched off", lambda: setattr(adapter, "_disabled", True)
    yield "adapter scaled", lambda: adapter.scaling.update(default=1.0)
    yield "buffer", lambda: model.model.rotary_emb.inv_freq.mul_(1.1)
    yield "configuration", lambda: setattr(model.config, "rms_norm_eps", 0.1)
    yield "type", lambda: model.to(torch.bfloat16)


def test_every_edit_makes_it_another_model(model_folder, prompts, tmp_path):
    chat = load_chat_model(model_folder, device="cpu")
    assert chat.fingerprint == chat.fingerprint  # before control: it does not depend on when it is asked for
    known = [chat.fingerprint]
    with torch.no_grad():
        for name, edit in edits(chat.bridge.original_model):
            edit()
            assert chat.fingerprint not in known, name
            known.append(chat.fingerprint)


def test_nothing_is_read_that_was_stored_before_an_edit(model_folder, prompts, tmp_path):
    chat = load_chat_model(model_folder, device="cpu")
    capture = lambda: capture_activations(chat, prompts[:2], layers=[7], cache_dir=tmp_path)  # noqa: E731
    before, text = capture(), generate(chat, prompts[:2], max_new_tokens=3, cache_dir=tmp_path)
    assert capture().n_captured == 0  # before control
    for weight in [*chat.bridge.original_model.parameters()]:
        weight.data.mul_(1.05)
    after = capture()
    assert after.n_captured == 2
    assert not torch.equal(after.values, before.values)
    changed = generate(chat, prompts[:2], max_new_tokens=3, cache_dir=tmp_path)
    assert changed.equals(generate(chat, prompts[:2], max_new_tokens=3))
    assert len([*tmp_path.glob("*.rows")]) == 2
    assert text is not changed


def test_computing_leaves_the_fingerprint_alone(chat, prompts):
    before, glance = chat.fingerprint, chat.signature
    capture_activations(chat, prompts[:2])
    generate(chat, prompts[:2], max_new_tokens=2)
    assert (chat.fingerprint, chat.signature) == (before, glance)


class Peft(nn.Module):
    """What peft puts around a model."""

    def __init__(self, model, **config):
        super().__init__()
        self.model, self.active_peft_config = model, SimpleNamespace(**config)

    def get_base_model(self):
        return self.model


def test_a_model_inside_one_of_peft_is_loaded_unless_its_adapter_adds_tokens(chat, model_folder):
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    loaded = load_chat_model(model_folder, hf_model=Peft(model, is_prompt_learning=False))
    kept, own = (capture_activations(each, ["Is it late?"], layers=[7]) for each in (loaded, chat))
    assert torch.equal(kept.values, own.values)
    loaded.unload()
    with pytest.raises(ValueError, match="load_chat_model: an adapter must not add tokens to prompts"):
        load_chat_model(model_folder, hf_model=Peft(model, is_prompt_learning=True))
