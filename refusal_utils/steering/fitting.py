"""Does an intervention fit a model? Checked before anything runs."""

from typing import Any

from ..checks import require, require_finite
from ..directions.ablation import require_unit
from ..model.chat_model import ChatModel, check_positions
from .interventions import Ablation, Addition, HeadReplacement, Intervention


def require_fit(chat: ChatModel, intervention: Intervention) -> None:
    """Raise `ValueError` unless `intervention` can be applied to `chat`."""
    if isinstance(intervention, HeadReplacement):
        _require_heads(chat, intervention)
        return
    must, kind = "layers must name at least one layer", type(intervention).__name__
    todo = "Name a layer; an Ablation without layers edits everything written to the stream."
    require(intervention.layers is None or len(intervention.layers) > 0, "intervene", must, f"() in an {kind}", todo)
    require(intervention.every >= 1, "intervene", "every must be at least 1", intervention.every, "Use 1 for all.")
    vectors = [intervention.vector] if isinstance(intervention, Addition) else [intervention.directions]
    if isinstance(intervention, Ablation) and intervention.reference is not None:
        vectors.append(intervention.reference)
    must, todo = (
        f"the width must be that of {chat.name}, {chat.d_model}",
        "Use directions of this model.",
    )
    for vector in vectors:
        require(vector.shape[-1] == chat.d_model, "intervene", must, vector.shape[-1], todo)
        require_finite("intervene", vector, "a vector")
    if isinstance(intervention, Ablation):
        n_directions, must = len(intervention.directions), "an Ablation needs at least one direction"
        require(n_directions > 0, "intervene", must, "none", "Pass [rank, d_model] with rank >= 1.")
        require_unit("intervene", intervention.directions)


def _require_heads(chat: ChatModel, replacement: HeadReplacement) -> None:
    model: Any = chat.bridge.original_model
    n_heads, shape = model.config.get_text_config().num_attention_heads, tuple(replacement.values.shape[:2])
    wrong = [head for head in replacement.heads if not (0 <= head[0] < chat.n_layers and 0 <= head[1] < n_heads)]
    must = f"a head must be one of {chat.n_layers} layers x {n_heads} heads"
    require(not wrong, "intervene", must, wrong[:1], "Count from 0.")
    given = (len(replacement.heads), len(replacement.positions))
    must = f"values must be given for {given[0]} heads at {given[1]} positions"
    require(shape == given, "intervene", must, shape, "Pass [head_index, pos, d_head].")
    check_positions("intervene", chat, replacement.positions)
