"""Directions to compare the refusal directions with: all refusals pooled, and random ones of two kinds."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ..directions.direction_set import DirectionSet
from ..directions.estimation import mean_difference, mean_direction, random_directions

OURS = "one of the eleven"  # the kind of a direction that is not a control


def with_controls(
    directions: DirectionSet,
    refused: Mapping[str, Float[Tensor, "_ d_model"]],
    answered: Float[Tensor, "answered_prompt d_model"],
    n: int = 5,
    seed: int = 0,
) -> tuple[DirectionSet, dict[str, str]]:
    """(`directions` with controls added, the kind of every direction by name).

    The controls are the difference in means of all refused prompts and the answered ones (`pooled`), `n` directions
    uniform on the sphere (`random`), and `n` with the covariance of the activations within the sides (`covariance`).
    The last two get the mean gap of `directions`.
    """
    everything = torch.cat([*refused.values()])
    controls = control_directions(directions, refused, answered, n, seed)
    kinds = dict.fromkeys(directions, OURS) | {"pooled": "pooled"} | {name: name.split()[0] for name in controls}
    vectors = [directions.vectors, mean_direction(everything, answered)[None], controls.vectors]
    gaps = torch.cat([directions.gaps, mean_difference(everything, answered).norm()[None], controls.gaps])
    return DirectionSet(tuple(kinds), torch.cat(vectors), gaps, directions.provenance), kinds


def control_directions(
    directions: DirectionSet,
    refused: Mapping[str, Float[Tensor, "_ d_model"]],
    answered: Float[Tensor, "answered_prompt d_model"],
    n: int = 5,
    seed: int = 0,
) -> DirectionSet:
    """`n` directions uniform on the sphere (`random 0`, ...) and `n` with the states' covariance within sides.

    They get the mean gap and the place of `directions`.
    """
    residuals = torch.cat([states - states.mean(0) for states in (*refused.values(), answered)])
    d_model = residuals.shape[1]
    vectors = [random_directions(n, d_model, spread, seed) for spread in (None, residuals)]
    names = [f"{kind} {number}" for kind in ("random", "covariance") for number in range(n)]
    gaps = directions.gaps.mean().expand(2 * n)
    return DirectionSet(tuple(names), torch.cat(vectors), gaps, directions.provenance)
