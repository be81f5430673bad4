"""Interventions on a chat model as values: what is done, where, to which tokens. Nothing here runs a model."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

Tokens = Literal["all", "prompt", "generation"]


@dataclass(frozen=True, eq=False)
class Addition:
    """x <- x + vector at `resid_pre` of each of `layers`. Source: Joad et al. 2602.02132, induction.

    `vector` is coefficient * direction. `tokens`: on the prompt, on what is generated, or on both; `every`: only on
    tokens whose number, counted from the first of the prompt, is a multiple of it. `keep_norm` scales x + vector back
    to the norm of x.
    """

    vector: Float[Tensor, " d_model"]
    layers: tuple[int, ...]
    tokens: Tokens = "all"
    every: int = 1
    keep_norm: bool = False


@dataclass(frozen=True, eq=False)
class Ablation:
    """x <- x - (x . r) r for each of `directions` (norm 1; their span is removed), and the reference's part put back.

    Without `layers`: on everything written to the stream, so that nothing is left along r anywhere (Arditi et al.
    2406.11717, eq. 4); with them, at `resid_pre` of these only. With `reference` the stream keeps the reference's
    component in the span (affine ablation, Marshall et al. 2411.09003). `tokens`, `every`: as for `Addition`.
    """

    directions: Float[Tensor, "rank d_model"]
    layers: tuple[int, ...] | None = None
    reference: Float[Tensor, " d_model"] | None = None
    tokens: Tokens = "all"
    every: int = 1


@dataclass(frozen=True, eq=False)
class HeadReplacement:
    """z of each of `heads` (layer, head_index) at `positions`, counted from the end of the prompt, replaced by `values`.

    With the mean over other prompts: mean ablation; with what a head gave on another prompt: patching. Acts on the
    prompt only, never on what is generated.
    """

    heads: tuple[tuple[int, int], ...]
    positions: tuple[int, ...]
    values: Float[Tensor, "replaced_head_index pos d_head"]


Intervention = Addition | Ablation | HeadReplacement


@dataclass(frozen=True, eq=False)
class Condition:
    """Interventions that are applied together, under a name. None at all: the unsteered model."""

    name: str
    interventions: tuple[Intervention, ...] = ()

    def first_layer(self, n_layers: int) -> int:
        """The first of the model's `n_layers` layers whose activations the condition can change; `n_layers` for none."""
        return min((_first_layer(each, n_layers) for each in self.interventions), default=n_layers)

    @cached_property
    def digest(self) -> str:
        """A hash of what the condition does, whatever its name; a zero vector does nothing."""
        parts = [
            {key: _content(value) for key, value in vars(each).items()} | {"kind": type(each).__name__}
            for each in self.interventions
            if not (isinstance(each, Addition) and not each.vector.any())
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _first_layer(intervention: Intervention, n_layers: int) -> int:
    if isinstance(intervention, HeadReplacement):
        return min(layer for layer, _ in intervention.heads)
    return 0 if intervention.layers is None else min(layer % n_layers for layer in intervention.layers)


def _content(value: Any) -> Any:
    return value.float().cpu().numpy().tobytes().hex() if isinstance(value, Tensor) else value


UNSTEERED = Condition("unsteered")
