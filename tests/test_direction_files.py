import dataclasses

import pytest
import torch

from refusal_utils.chat_model import load_chat_model
from refusal_utils.direction_files import direction_notes, load_directions, save_directions
from refusal_utils.directions import random_directions


@pytest.fixture
def directions(chat):
    return dict(zip(("humanizing", "advice"), random_directions(2, chat.d_model), strict=True))


def test_directions_come_back_with_their_place(chat, directions, tmp_path):
    path = save_directions(tmp_path / "below" / "d.safetensors", directions, chat, 4, -2)
    found, layer, pos = load_directions(path, chat)
    assert (layer, pos, list(found)) == (4, -2, list(directions))
    assert all(torch.equal(found[name], directions[name]) for name in directions)
    notes = direction_notes(path)
    assert (notes["model"], notes["layer"], notes["pos"]) == ("bundled", 4, -2)
    assert (notes["dtype"], notes["thinking"], notes["system_prompt"]) == ("float32", "no thinking switch", None)
    assert notes["decision_source"] == chat.decision_source
    asked = dataclasses.replace(chat, system_prompt="Be kind.", thinking="thinking switched off")
    notes = direction_notes(save_directions(path, directions, asked, 4, -2))
    assert (notes["thinking"], notes["system_prompt"]) == ("thinking switched off", "Be kind.")
    assert direction_notes(tmp_path / "none.safetensors") is None


def test_directions_of_another_model_are_refused(chat, directions, tmp_path, model_folder):
    path = save_directions(tmp_path / "d.safetensors", directions, chat, 4, -2)
    template = model_folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("'<|end|>'", "' <|end|>'"))
    other = load_chat_model(model_folder, device="cpu")
    with pytest.raises(ValueError, match="directions and model must belong together; got directions of bundled"):
        load_directions(path, other)
    narrow = dataclasses.replace(chat, d_model=7)
    with pytest.raises(ValueError, match=r"the width must be that of bundled, 7; got \(192,\) for advice"):
        load_directions(path, narrow)


def test_what_is_no_direction_is_refused(chat, directions, tmp_path):
    with pytest.raises(ValueError, match="save_directions: a direction must have norm 1"):
        save_directions(tmp_path / "d.safetensors", {"long": 2 * directions["advice"]}, chat, 4, -2)
    (tmp_path / "other.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="the file must come from save_directions; got .*other.safetensors"):
        load_directions(tmp_path / "other.safetensors", chat)
