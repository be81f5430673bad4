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
    residuals = torch.cat([states - states.mean(0) for states in (*refused.values(), answered)])
    kinds = dict.fromkeys(directions, OURS) | {"pooled": "pooled"}
    vectors = [directions.vectors, mean_direction(everything, answered)[None]]
    for kind, spread in (("random", None), ("covariance", residuals)):
        vectors.append(random_directions(n, vectors[0].shape[1], spread, seed))
        kinds |= {f"{kind} {number}": kind for number in range(n)}
    own = mean_difference(everything, answered).norm()[None]
    gaps = torch.cat([directions.gaps, own, directions.gaps.mean().expand(2 * n)])
    return DirectionSet(tuple(kinds), torch.cat(vectors), gaps, directions.provenance), kinds
