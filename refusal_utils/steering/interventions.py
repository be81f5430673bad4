"""Interventions on a chat model as values: what is done, where, and to which tokens. Nothing here runs a model."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

Tokens = Literal["all", "prompt", "generation"]


@dataclass(frozen=True, eq=False)
class Addition:
    """x <- x + vector at `resid_pre` of each of `layers`. Source: Joad et al. 2602.02132, induction.

    `vector` is coefficient * direction. `tokens` selects the prompt, the generated tokens, or both. `every` selects
    the tokens whose position, counted from the first token of the prompt, is a multiple of it. `keep_norm` rescales
    x + vector to the norm of x.
    """

    vector: Float[Tensor, " d_model"]
    layers: tuple[int, ...]
    tokens: Tokens = "all"
    every: int = 1
    keep_norm: bool = False


@dataclass(frozen=True, eq=False)
class Ablation:
    """x <- x - (x . r) r for the unit `directions`: their whole span is removed.

    Without `layers` the edit applies to everything written to the residual stream, so nothing is left along r at any
    layer (Arditi et al. 2406.11717, eq. 4). With them it applies at `resid_pre` of those layers only. With `reference`
    the stream keeps the reference's component in the span (affine ablation, Marshall et al. 2411.09003). `tokens` and
    `every` are those of `Addition`.
    """

    directions: Float[Tensor, "rank d_model"]
    layers: tuple[int, ...] | None = None
    reference: Float[Tensor, " d_model"] | None = None
    tokens: Tokens = "all"
    every: int = 1


@dataclass(frozen=True, eq=False)
class HeadReplacement:
    """z of each of `heads` (layer, head_index) at `positions`, counted from the end of the prompt, becomes `values`.

    Values that are means over other prompts give mean ablation; values from another prompt give patching. Only the
    prompt is edited, never the generated tokens.
    """

    heads: tuple[tuple[int, int], ...]
    positions: tuple[int, ...]
    values: Float[Tensor, "replaced_head_index pos d_head"]


Intervention = Addition | Ablation | HeadReplacement


def first_edited_layer(intervention: Intervention, n_layers: int) -> int:
    """The first of the model's `n_layers` layers whose activations the intervention can change."""
    if isinstance(intervention, HeadReplacement):
        return min(layer for layer, _ in intervention.heads)
    return 0 if intervention.layers is None else min(layer % n_layers for layer in intervention.layers)
