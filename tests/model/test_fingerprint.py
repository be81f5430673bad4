import dataclasses
import json

import pytest
import torch
from torch import nn

from refusal_utils.model import fingerprint as module
from refusal_utils.model.chat_model import load_chat_model


def test_fingerprint_sees_one_changed_weight(chat, model_folder):
    other = load_chat_model(model_folder, device="cpu")
    assert dataclasses.replace(other).fingerprint == chat.fingerprint
    changed = load_chat_model(model_folder, device="cpu")
    with torch.no_grad():
        list(changed.bridge.original_model.parameters())[-1].view(-1)[-1] += 1e-3
    assert changed.fingerprint != chat.fingerprint


def test_fingerprint_sees_the_architecture_and_not_where_the_model_lies(chat, model_folder):
    config = json.loads((model_folder / "config.json").read_text())
    (model_folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3, "transformers_version": "1"}))
    assert load_chat_model(model_folder, device="cpu").fingerprint != chat.fingerprint
    (model_folder / "config.json").write_text(json.dumps(config | {"transformers_version": "1", "use_cache": False}))
    assert load_chat_model(model_folder, device="cpu").fingerprint == chat.fingerprint


def test_fingerprint_sees_the_date_that_a_template_receives(chat, monkeypatch):
    before = chat.fingerprint
    monkeypatch.setattr(module, "render_chat", lambda *_: "Today is Monday")
    assert chat.fingerprint != before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.bool])
def test_checksums_see_any_one_change_and_any_swap(dtype):
    values = torch.arange(1001).remainder(7).gt(3).to(dtype)
    found = module._checksums(values)
    assert module._checksums(values.clone()) == found
    for place in range(0, 1001, 13):
        changed = values.clone()
        changed[place] = 1 - changed[place].to(torch.int8)
        assert module._checksums(changed) != found
        swapped = values.clone()
        swapped[[place, (place + 4) % 1001]] = values[[(place + 4) % 1001, place]]
        assert torch.equal(swapped, values) or module._checksums(swapped) != found


def test_the_signature_is_equal_for_an_unchanged_model_with_a_nan_and_shared_weights():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    model.append(model[0])
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    before = module.signature(model)
    assert module.signature(model) == before
    with torch.no_grad():
        model[0].bias[1] += 1
    assert module.signature(model) != before
    edited = module.signature(model)
    model[0].bias.data[1] += 1  # behind torch's back
    assert module.signature(model) != edited
