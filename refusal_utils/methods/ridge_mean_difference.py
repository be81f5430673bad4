"""Ridge mean difference (RMD): the difference in means, whitened by the answered prompts' regularised covariance."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import invalid, require
from .difference_in_means import difference
from .method import StateMethod, per_category

RidgeUnit = Literal["share", "absolute"]
SOURCE = "Refusal Steering, arXiv 2512.16602"
OPTIONS = {"ridge": 0.1, "ridge_unit": "share"}


def ridge_difference(
    refused: Float[Tensor, "refused_prompt d_model"],
    answered: Float[Tensor, "answered_prompt d_model"],
    ridge: float,
    ridge_unit: RidgeUnit,
) -> Float[Tensor, " d_model"]:
    """(C + lambda I)^-1 (mean(refused) - mean(answered)), with the covariance C of the answered prompts.

    lambda is `ridge` itself with `ridge_unit="absolute"`, as in the source, whose 0.1 means little for states of
    another size. With "share" it is that share of C's mean eigenvalue, trace(C)/d_model, so that layers and models
    compare. Only the direction counts: the seam sets the length. Raises `ValueError` if the two means coincide, and for
    a `ridge` that is not positive or a `ridge_unit` that is unknown.
    """
    own, others = (torch.full((len(side),), 1 / len(side), dtype=torch.float64) for side in (refused, answered))
    return weighted_ridge_difference(refused, answered, own, others, ridge, ridge_unit)


def weighted_ridge_difference(
    refused: Float[Tensor, "refused_prompt d_model"],
    answered: Float[Tensor, "answered_prompt d_model"],
    refused_share: Float[Tensor, " refused_prompt"],
    answered_share: Float[Tensor, " answered_prompt"],
    ridge: float,
    ridge_unit: RidgeUnit,
) -> Float[Tensor, " d_model"]:
    """`ridge_difference` whose means and covariance give every prompt a share; shares sum to 1 on either side.

    Raises `ValueError` as `ridge_difference` does.
    """
    difference(refused, answered)  # raises if there is none
    mean = answered_share @ answered.double()
    rows = answered_share.sqrt()[:, None] * (answered.double() - mean)
    penalty = ridge_penalty(ridge, ridge_unit, float(rows.square().sum()) / rows.shape[1])
    return whiten(refused_share @ refused.double() - mean, rows, penalty).float()


def ridge_penalty(ridge: float, ridge_unit: RidgeUnit, mean_eigenvalue: float) -> float:
    """lambda, from a share of the mean eigenvalue or as given. Raises `ValueError` unless it is positive."""
    scales = {"share": mean_eigenvalue, "absolute": 1.0}
    if ridge_unit not in scales:
        raise invalid("ridge_penalty", f"ridge_unit must be one of {', '.join(scales)}", repr(ridge_unit), "Use one.")
    penalty = ridge * scales[ridge_unit]
    got = f"ridge {ridge} ({ridge_unit}) at a mean variance of {mean_eigenvalue:.3g}"
    require(penalty > 0, "ridge_penalty", "lambda must be positive", got, "Pass a positive ridge, or states that vary.")
    return penalty


def whiten(
    vector: Float[Tensor, " d_model"], rows: Float[Tensor, "prompt d_model"], penalty: float
) -> Float[Tensor, " d_model"]:
    """(rows^T rows + penalty I)^-1 vector, by the smaller of two systems.

    With fewer prompts than dimensions this is Woodbury's identity, which solves a system of the size of the prompts.
    """
    n, d_model = rows.shape
    if n >= d_model:
        return torch.linalg.solve(rows.T @ rows + penalty * torch.eye(d_model, dtype=rows.dtype), vector)
    inner = torch.linalg.solve(rows @ rows.T + penalty * torch.eye(n, dtype=rows.dtype), rows @ vector)
    return (vector - rows.T @ inner) / penalty


METHOD = StateMethod(
    name="ridge_mean_difference",
    title="Ridge mean difference (RMD)",
    source=SOURCE,
    options=OPTIONS,
    at_least=2,
    reads="resid_post",
    find=per_category(ridge_difference),
)
