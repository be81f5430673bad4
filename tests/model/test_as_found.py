import pytest
import torch
from transformers import AutoModelForCausalLM

from refusal_utils.model.capture import capture_activations
from refusal_utils.model.chat_model import load_chat_model
from tests.families import save_family


@pytest.mark.parametrize("family", ["gemma2", "qwen2_moe", "phi3"])
def test_a_callers_model_is_saved_and_loaded_again_after_unload(tmp_path, prompts, family):
    folder, ids = save_family(family, tmp_path / family), torch.tensor([[3, 5, 9]])
    model = AutoModelForCausalLM.from_pretrained(folder).train()
    names, modules = list(model.state_dict()), [*model.modules()]
    kernels = model.config._attn_implementation
    with torch.no_grad():
        before = model(ids).logits
    chat = load_chat_model(folder, hf_model=model)
    capture_activations(chat, prompts[:2])
    assert list(model.state_dict()) != names  # before control: the bridge has other names
    chat.unload()
    assert list(model.state_dict()) == names
    assert [*model.modules()] == modules
    assert model.training
    assert model.config._attn_implementation == kernels
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    with torch.no_grad():
        assert torch.equal(model(ids).logits, before)
        assert torch.equal(again(ids).logits, before)


def test_a_model_that_cannot_be_loaded_is_left_alone(tmp_path):
    folder = save_family("gemma2", tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    names = list(model.state_dict())
    with pytest.raises(ValueError, match="positions must lie in the template's last"):
        load_chat_model(folder, hf_model=model, pos=-99)
    assert list(model.state_dict()) == names
