"""Where refusal directions are read by default: the layer and position that were published for a model, with the source.

Positions count from the end of the chat template's generation prompt, layers are those of `resid_pre`.
"""

import json
from pathlib import Path

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


def decision_default(name: str, n_layers: int) -> tuple[int, int, str]:
    """(layer, pos, source) published for the model called `name`, a hub id or folder; else the middle of `n_layers` and -2.

    The last part of the name must be that of the published model, in any case, and the depth must be its depth:
    a fine-tune under another name, or a model cut to fewer layers, is another model.

    >>> decision_default("google/gemma-2-9b-it", 42)
    (20, -2, 'Joad et al. 2602.02132')
    >>> decision_default("someone/gemma-2-9b-it-edited", 42)[:2]
    (21, -2)
    """
    depth, layer, pos, source = PUBLISHED.get(Path(name).name.lower(), (0, 0, 0, ""))
    return (layer, pos, source) if depth == n_layers else (n_layers // 2, DEFAULT_POS, NOT_PUBLISHED)


def decision_state(
    name: str, source: str | Path, n_layers: int, n_suffix: int, layer: int | None = None, pos: int | None = None
) -> tuple[int, int, str]:
    """(layer, pos, where they come from): what is given, what the folder's `decision_state.json` records, the default.

    `n_suffix`: how many fixed tokens the template ends in. Where a default position lies before them it is -1. Raises
    `ValueError` for a layer out of range and a record that cannot be read.
    """
    path = Path(source) / "decision_state.json"
    if path.is_file():
        found = *_recorded(path), "decision_state.json of the model's folder"
    else:
        found = decision_default(name, n_layers)
        if found[1] < -n_suffix:
            found = found[0], -1, f"{found[2]}; -1, since the template's fixed ending has {n_suffix} token(s)"
    if not 0 <= (found[0] if layer is None else layer) < n_layers:
        wrong = found[0] if layer is None else layer
        raise ValueError(
            f"load_chat_model: the layer must be one of 0 to {n_layers - 1}; got {wrong}. Count from the first."
        )
    given = [what for what, value in (("layer", layer), ("pos", pos)) if value is not None]
    origin = {0: found[2], 1: f"{given and given[0]} given; else {found[2]}", 2: "given"}[len(given)]
    return found[0] if layer is None else layer, found[1] if pos is None else pos, origin


def _recorded(path: Path) -> tuple[int, int]:
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        return int(recorded["layer"]), int(recorded["pos"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"load_chat_model: the recorded decision state must have layer and pos; got {type(error).__name__} in {path}. "
            "Mend or remove that file."
        ) from error
