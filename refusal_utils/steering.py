"""Interventions as context managers: add a steering vector, or ablate directions. The model is left as it was found."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jaxtyping import Float
from torch import Tensor

from .chat_model import ChatModel
from .directions import orthonormal_basis, require_unit


@contextmanager
def add_steering(
    chat: ChatModel, steering_vector: Float[Tensor, " d_model"], layer: int | None = None
) -> Iterator[ChatModel]:
    """Add `steering_vector` (coefficient * direction) to `resid_pre` of `layer` at every position, while open.

    `layer` defaults to the decision layer. Raises `ValueError` for a vector of another width or a layer out of range.
    Source: x <- x + alpha r, Joad et al. 2602.02132.
    """
    _require_width("add_steering", chat, steering_vector)
    vector = steering_vector.to(chat.device, chat.dtype)
    name = chat.hook_name("resid_pre", chat.decision_layer if layer is None else layer)
    with chat.bridge.hooks(fwd_hooks=[(name, lambda value, hook: value + vector)]):
        yield chat


@contextmanager
def ablate_direction(chat: ChatModel, directions: Float[Tensor, "*rank d_model"]) -> Iterator[ChatModel]:
    """Remove `directions` from everything written to the residual stream, at every layer and position, while open.

    Edits `resid_pre` of layer 0 and `attn_out`, `mlp_out` of every layer: an edit of `resid_mid` would be without
    effect. One direction [d_model] or several [rank, d_model], each of norm 1. Raises `ValueError` for another width
    or norm. Source: directional ablation, Arditi et al. 2406.11717, eq. 4.
    """
    _require_width("ablate_direction", chat, directions)
    stacked = directions.reshape(-1, chat.d_model)
    for direction in stacked:
        require_unit("ablate_direction", direction)
    basis = orthonormal_basis(stacked).to(chat.device, chat.dtype)

    def remove(value: Tensor, hook: object) -> Tensor:
        return value - (value @ basis.T) @ basis

    with chat.bridge.hooks(fwd_hooks=[(name, remove) for name in written_hooks(chat)]):
        yield chat


def written_hooks(chat: ChatModel) -> list[str]:
    """The names of all hooks at which something is written to the residual stream."""
    name: Callable[[str, int], str] = chat.hook_name
    layers = range(chat.n_layers)
    return [name("resid_pre", 0), *(name(hook, layer) for layer in layers for hook in ("attn_out", "mlp_out"))]


def _require_width(function: str, chat: ChatModel, vectors: Tensor) -> None:
    if vectors.shape[-1] != chat.d_model:
        raise ValueError(
            f"{function}: the width must be that of {chat.name}, {chat.d_model}; got {vectors.shape[-1]}. "
            "Take direction and model from the same place."
        )
