"""The decision state: the layer and position at which refusal directions are read by default, and their source."""

import json
from pathlib import Path
from typing import NamedTuple

from ..checks import invalid, require

DEFAULT_POS = -2  # the paper's decision state: the token before the last one of the generation prompt

JOAD, JOAD_RELEASE = "Joad et al. 2602.02132", "release of Joad et al. 2602.02132"
ARDITI_RELEASE = "release of Arditi et al. 2406.11717"
NOT_PUBLISHED = "none published for this model: middle of the depth"

# Last part of the hub id: (layers of the model, layer, pos, source).
PUBLISHED = {
    "gemma-2-9b-it": (42, 20, -2, JOAD),
    "llama-3.1-8b-instruct": (32, 15, -2, JOAD),  # the paper says 15 to 16
    "meta-llama-3.1-8b-instruct": (32, 15, -2, JOAD),
    "meta-llama-3-8b-instruct": (32, 12, -5, JOAD_RELEASE),
    "qwen-7b-chat": (32, 18, -1, JOAD_RELEASE),
    "gemma-2b-it": (18, 10, -2, ARDITI_RELEASE),
    "qwen-1_8b-chat": (24, 15, -2, ARDITI_RELEASE),
    "llama-2-7b-chat-hf": (32, 14, -1, ARDITI_RELEASE),
    "yi-6b-chat": (32, 20, -5, ARDITI_RELEASE),
}


class DecisionState(NamedTuple):
    """A layer (of `resid_pre`), a position counted from the end of the prompt, and where this choice comes from."""

    layer: int
    pos: int
    source: str


def decision_default(name: str, n_layers: int) -> DecisionState:
    """The decision state published for the model called `name` (a hub id or folder), or the middle layer and -2.

    The last part of the name and the number of layers must both match: a fine-tune or a shortened model is another one.

    >>> decision_default("google/gemma-2-9b-it", 42)
    DecisionState(layer=20, pos=-2, source='Joad et al. 2602.02132')
    >>> decision_default("someone/gemma-2-9b-it-edited", 42)[:2]
    (21, -2)
    """
    depth, layer, pos, source = PUBLISHED.get(Path(name).name.lower(), (0, 0, 0, ""))
    found = (layer, pos, source) if depth == n_layers else (n_layers // 2, DEFAULT_POS, NOT_PUBLISHED)
    return DecisionState(*found)


def decision_state(
    name: str, source: str | Path, n_layers: int, n_suffix: int, layer: int | None = None, pos: int | None = None
) -> DecisionState:
    """The decision state as given, or as the folder's `decision_state.json` records it, or `decision_default`.

    `n_suffix`: the number of fixed tokens at the end of the template; a default position before them becomes -1.
    Raises `ValueError` for a layer out of range and for a record that cannot be read.
    """
    path = Path(source) / "decision_state.json"
    found = _recorded(path) if path.is_file() else decision_default(name, n_layers)
    if not path.is_file() and found.pos < -n_suffix:
        why = f"{found.source}; -1, since the template's fixed ending has {n_suffix} token(s)"
        found = found._replace(pos=-1, source=why)
    given = {name: value for name, value in (("layer", layer), ("pos", pos)) if value is not None}
    origin = "given" if len(given) == 2 else "".join(f"{name} given; else " for name in given) + found.source
    state = found._replace(**given, source=origin)
    check_layer(state.layer, n_layers)
    return state


def check_layer(layer: int, n_layers: int) -> None:
    """Raise `ValueError` for a layer that the model does not have."""
    must = f"the layer must be one of 0 to {n_layers - 1}"
    require(0 <= layer < n_layers, "load_chat_model", must, layer, "Count from the first.")


def _recorded(path: Path) -> DecisionState:
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        layer, pos = int(recorded["layer"]), int(recorded["pos"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        must, got = "the recorded decision state must have layer and pos", f"{type(error).__name__} in {path}"
        raise invalid("load_chat_model", must, got, "Repair or remove that file.") from error
    return DecisionState(layer, pos, "decision_state.json of the model's folder")


def searched_layers(n_layers: int) -> tuple[int, ...]:
    """The layers that a search for the decision state tries: every second from 2 on, or the last one of fewer."""
    return tuple(range(min(2, n_layers - 1), n_layers, 2))
