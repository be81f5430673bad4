"""Directions on disk, with the model, layer and position that they belong to: none is used on another model by mistake."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .chat_model import ChatModel
from .directions import require_unit


def save_directions(
    path: str | Path,
    directions: Mapping[str, Float[Tensor, " d_model"]],
    chat: ChatModel,
    layer: int,
    pos: int,
    **more: str,
) -> Path:
    """Write unit directions by name as one safetensors file with notes that name model, fingerprint, hook, layer and position.

    Also noted: decision_source, dtype, thinking and system_prompt of the model, and `more`, such as the draw that
    the directions are of.
    Raises `ValueError` for a direction that has not norm 1, or the model's width.
    """
    for name, direction in directions.items():
        require_unit("save_directions", direction)
        _require_width("save_directions", name, direction, chat)
    notes = {"model": chat.name, "fingerprint": chat.fingerprint, "hook": "resid_pre", "layer": layer, "pos": pos}
    notes |= {name: getattr(chat, name) for name in ("decision_source", "thinking", "system_prompt")}
    notes |= {"dtype": str(chat.dtype).removeprefix("torch."), "names": list(directions)}  # safetensors sorts
    notes = more | notes
    tensors = {name: direction.float().cpu().contiguous() for name, direction in directions.items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, {"directions": json.dumps(notes)})
    return Path(path)


def direction_notes(path: str | Path) -> dict[str, Any] | None:
    """What a file of `save_directions` says it belongs to: model, fingerprint, hook, layer, pos and more. None without such notes."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {})["directions"])
    except (SafetensorError, OSError, KeyError):
        return None


def load_directions(path: str | Path, chat: ChatModel) -> tuple[dict[str, Float[Tensor, " d_model"]], int, int]:
    """(directions by name, in the order saved, layer, pos) from a file of `save_directions`, if they were read from this very model.

    Raises `ValueError` where weights, tokenizer, template, system prompt or dtype differ from those of `chat`, and for
    a file without these notes.
    """
    try:
        with safe_open(path, "pt") as file:
            notes = json.loads((file.metadata() or {})["directions"])
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, KeyError) as error:
        raise ValueError(
            f"load_directions: the file must come from save_directions; got {path} ({type(error).__name__}). Make it anew."
        ) from error
    for name, direction in found.items():
        _require_width("load_directions", name, direction, chat)
    if notes["fingerprint"] != chat.fingerprint:
        raise ValueError(
            f"load_directions: directions and model must belong together; got directions of {notes['model']} "
            f"({notes['fingerprint']}) for {chat.name} ({chat.fingerprint}). Estimate them on this model."
        )
    return {name: found[name] for name in notes["names"]}, int(notes["layer"]), int(notes["pos"])


def _require_width(function: str, name: str, direction: Float[Tensor, " d_model"], chat: ChatModel) -> None:
    if direction.shape != torch.Size([chat.d_model]):
        raise ValueError(
            f"{function}: the width must be that of {chat.name}, {chat.d_model}; got {tuple(direction.shape)} for {name}. "
            "Take direction and model from the same place."
        )
