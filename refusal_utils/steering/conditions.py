"""Conditions: interventions that are applied together, with the direction and the strength that they stand for.

A strength is a coefficient (in units of the residual stream) or a number of gaps, which makes directions comparable:
one gap is the distance between the means of the two sides that the direction was estimated from.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from math import isnan, nan
from typing import Any

import torch
from torch import Tensor

from ..checks import require
from ..directions.direction_set import DirectionSet
from .interventions import Ablation, Addition, Intervention, PartialAblation, SequentialAblation, first_edited_layer


@dataclass(frozen=True, eq=False)
class Condition:
    """Interventions that are applied together; without any, this is the unsteered model.

    `name` is a label for people. `coefficient` is NaN for an intervention without a strength, such as an ablation.
    `gap` is in units of the residual stream, NaN if unknown.
    """

    name: str
    interventions: tuple[Intervention, ...] = ()
    direction: str = ""
    coefficient: float = 0.0
    gap: float = nan

    @property
    def gaps(self) -> float:
        """The strength in gaps, NaN if the gap is unknown."""
        # Rounded so that a strength given in gaps comes back as given: (0.7 * gap) / gap is not always 0.7.
        return 0.0 if self.coefficient == 0 else round(self.coefficient / self.gap, 12)

    def first_layer(self, n_layers: int) -> int:
        """The first of the model's `n_layers` layers whose activations can change; `n_layers` if none can."""
        return min((first_edited_layer(each, n_layers) for each in self.interventions), default=n_layers)

    @cached_property
    def digest(self) -> str:
        """A hash of what the condition does, whatever its name; additions of a zero vector are ignored."""
        parts = [
            {key: _content(value) for key, value in vars(each).items()} | {"kind": type(each).__name__}
            for each in self.interventions
            if not (isinstance(each, Addition) and not each.vector.any())
        ]
        return hashlib.sha256(json.dumps(parts, default=_plain).encode()).hexdigest()[:16]


UNSTEERED = Condition("unsteered")


def steering_condition(
    directions: DirectionSet,
    name: str,
    *,
    coefficient: float | None = None,
    gaps: float | None = None,
    layer: int | None = None,
    **options: Any,
) -> Condition:
    """Add the direction `name` at `layer` (default: where it was read), at a strength in either unit.

    `options` are those of `Addition`. Raises `ValueError` for an unknown direction, for both or neither of
    `coefficient` and `gaps`, and for `gaps` of a direction whose gap is unknown.

    >>> import torch
    >>> from refusal_utils.directions.direction_set import Provenance
    >>> directions = DirectionSet(("advice",), torch.eye(4)[:1], torch.tensor([8.0]), Provenance(layer=3))
    >>> condition = steering_condition(directions, "advice", gaps=0.5)
    >>> condition.name, condition.coefficient, condition.gaps
    ('advice +4', 4.0, 0.5)
    """
    must, got = "the strength must be given in exactly one unit", f"coefficient {coefficient} and gaps {gaps}"
    require((coefficient is None) != (gaps is None), "steering_condition", must, got, "Pass coefficient or gaps.")
    gap = directions.gap(name)
    must, todo = f"the gap of {name} must be known to give a strength in gaps", "Pass a coefficient."
    require(not gaps or not isnan(gap), "steering_condition", must, gap, todo)
    coefficient = (gaps * gap if gaps else 0.0) if coefficient is None else coefficient
    layers = (directions.provenance.layer if layer is None else layer,)
    edit = Addition(coefficient * directions[name], layers, **options)
    return Condition(f"{name} {coefficient:+.4g}", (edit,), name, float(coefficient), gap)


def ablation_condition(
    directions: DirectionSet, *names: str, in_turn: bool = False, share: float = 1.0, **options: Any
) -> Condition:
    """Remove the span of the named directions, a `share` of it, or each `in_turn`; `options`: those of `Ablation`.

    Raises `ValueError` for an unknown direction, if no name is given, and for a share in turn.
    """
    require(len(names) > 0, "ablation_condition", "there must be at least one direction", "none", "Name one.")
    must = "directions removed in turn must be removed whole"
    require(not in_turn or share == 1, "ablation_condition", must, f"share {share}", "Leave out one of the two.")
    joined, kind = (", ".join(names), SequentialAblation) if in_turn else (" + ".join(names), Ablation)
    rows = torch.stack([directions[name] for name in names])
    gap = directions.gap(names[0]) if len(names) == 1 else nan
    edit = kind(rows, **options) if share == 1 else PartialAblation(rows, share=share, **options)
    part = "" if share == 1 else f"{share:.4g} of "
    return Condition(f"ablate {part}{joined}", (edit,), joined, nan, gap)


def _plain(value: Any) -> Any:
    """What JSON knows: plain numbers for NumPy's, a list for a range."""
    return value.tolist() if hasattr(value, "tolist") else list(value)


def _content(value: Any) -> Any:
    return value.detach().float().cpu().numpy().tobytes().hex() if isinstance(value, Tensor) else value
