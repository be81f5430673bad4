"""Directions from activations: differences in means, features and random controls, in float32 or better."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import require

COINCIDENT = 1e-5  # two means closer than this, relative to their own size, differ only by rounding


def mean_difference(
    refused: Float[Tensor, "refused_prompt d_model"], answered: Float[Tensor, "answered_prompt d_model"]
) -> Float[Tensor, " d_model"]:
    """mean(refused) - mean(answered), not normalised, in units of the residual stream; its norm is the gap.

    Means are taken in float64 and returned as float32 (a bfloat16 mean is off by 0.2 %). Raises `ValueError`
    for an empty side and for values that are not finite.
    Source: difference in means, Joad et al. 2602.02132; Arditi et al. 2406.11717.
    """
    for name, side in (("refused", refused), ("answered", answered)):
        must = f"there must be at least one {name} prompt"
        require(len(side) > 0, "mean_difference", must, "none", "Pass rows of activations.")
        require_finite("mean_difference", side, f"the {name} activations")
    return (refused.double().mean(0) - answered.double().mean(0)).float()


def mean_direction(
    refused: Float[Tensor, "refused_prompt d_model"], answered: Float[Tensor, "answered_prompt d_model"]
) -> Float[Tensor, " d_model"]:
    """The unit vector from the mean of the answered prompts to the mean of the refused ones.

    Raises `ValueError` if the means coincide up to rounding, as they do at layer 0 at template positions.
    """
    difference = mean_difference(refused, answered)
    size = max(float(side.double().mean(0).norm()) for side in (refused, answered))
    norm = float(difference.double().norm())
    got = f"norm {norm:.2g} over {len(refused)} and {len(answered)} rows"
    todo = "Check that the two sides come from different prompts and not from layer 0."
    require(norm > COINCIDENT * size, "mean_direction", "the two means must differ", got, todo)
    return normalize(difference)


def mean_directions(
    refused: Mapping[str, Float[Tensor, "_ d_model"]], answered: Float[Tensor, "answered_prompt d_model"]
) -> Float[Tensor, "category d_model"]:
    """The `mean_direction` of every category, in the order of `refused`."""
    return torch.stack([mean_direction(states, answered) for states in refused.values()])


def normalize(vectors: Float[Tensor, "*category d_model"]) -> Float[Tensor, "*category d_model"]:
    """`vectors` scaled to norm 1 along the last axis. Raises `ValueError` for a zero or non-finite vector.

    >>> normalize(torch.tensor([3.0, 4.0]))
    tensor([0.6000, 0.8000])
    """
    require_finite("normalize", vectors, "the vectors")
    norms = vectors.double().norm(dim=-1, keepdim=True)
    n_zero, todo = int((norms == 0).sum()), "Drop the layers at which both means coincide."
    require(n_zero == 0, "normalize", "every vector must have a direction", f"{n_zero} zero vectors", todo)
    return (vectors.double() / norms).float()


def feature_direction(
    activations: Float[Tensor, "prompt d_model"], feature: Float[Tensor, " prompt"]
) -> Float[Tensor, " d_model"]:
    """The unit vector along which `activations` covary with a number per prompt, such as its length.

    Raises `ValueError` if the feature is constant or the activations do not covary with it.
    """
    centred = feature.double() - feature.double().mean()
    got = f"{float(feature[0]):.4g} for all {len(feature)} prompts"
    require(bool(centred.any()), "feature_direction", "the feature must vary", got, "Drop it.")
    return normalize((centred @ activations.double()).float())


def random_directions(
    n: int, d_model: int, residuals: Float[Tensor, "prompt d_model"] | None = None, seed: int = 0
) -> Float[Tensor, "rank d_model"]:
    """`n` random unit vectors, as controls for a direction.

    They are uniform on the sphere or, with `residuals` (activations minus their class means), have the covariance of
    these, so that they point where activations vary.
    """
    generator = torch.Generator().manual_seed(seed)
    if residuals is None:
        return normalize(torch.randn(n, d_model, generator=generator))
    weights = torch.randn(n, len(residuals), generator=generator)
    return normalize(weights @ (residuals.float() - residuals.float().mean(0)))


def require_finite(function: str, values: Float[Tensor, "..."], what: str) -> None:
    """Raise `ValueError` in the name of `function` unless every entry of `values` is finite."""
    n_bad = int((~torch.isfinite(values)).sum())
    require(
        n_bad == 0, function, f"{what} must be finite", f"{n_bad} NaN or infinite values", "Use bfloat16 or float32."
    )
