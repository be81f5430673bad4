"""Projections of activations on a direction, and activations with directions removed."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import require


def project(
    activations: Float[Tensor, "*prompt d_model"], direction: Float[Tensor, " d_model"]
) -> Float[Tensor, "*prompt"]:
    """The signed length of each activation along `direction`, in units of the residual stream.

    Raises `ValueError` unless `direction` has norm 1.

    >>> project(torch.tensor([[2.0, 5.0]]), torch.tensor([1.0, 0.0]))
    tensor([2.])
    """
    require_unit("project", direction)
    return activations.float() @ direction.float()


def ablate(
    activations: Float[Tensor, "*prompt d_model"], directions: Float[Tensor, "*rank direction_d_model"]
) -> Float[Tensor, "*prompt d_model"]:
    """`activations` minus their projection on the span of `directions`: x - (x . r) r for one direction.

    `directions` is one direction [d_model] or several [rank, d_model], which are orthonormalised first. Raises
    `ValueError` unless every direction has norm 1 and is as wide as the activations.
    Source: directional ablation, Arditi et al. 2406.11717, eq. 4.

    >>> ablate(torch.tensor([[2.0, 5.0]]), torch.tensor([1.0, 0.0]))
    tensor([[0., 5.]])
    """
    stacked = directions.reshape(-1, directions.shape[-1])
    require_unit("ablate", stacked)
    widths = activations.shape[-1], stacked.shape[-1]
    must, got = "activations and directions must have the same width", f"{widths[0]} and {widths[1]}"
    require(widths[0] == widths[1], "ablate", must, got, "Take both from the same model.")
    wide = activations.to(torch.promote_types(activations.dtype, torch.float32))
    basis = orthonormal_basis(stacked).to(wide.dtype)
    return (wide - wide @ basis.T @ basis).to(activations.dtype)


def orthonormal_basis(directions: Float[Tensor, "category d_model"]) -> Float[Tensor, "rank d_model"]:
    """Orthonormal rows that span the same space as `directions`, in float32 or better; dependent rows are dropped."""
    _, singular, rows = torch.linalg.svd(directions.double(), full_matrices=False)
    return rows[singular > 1e-6 * singular[0]].to(torch.promote_types(directions.dtype, torch.float32))


def require_unit(function: str, directions: Float[Tensor, "*category d_model"]) -> None:
    """Raise `ValueError` in the name of `function` unless every one of `directions` has norm 1."""
    for norm in directions.double().norm(dim=-1).flatten().tolist():
        todo = "Use normalize() first, or mean_direction()."
        require(abs(norm - 1) <= 1e-3, function, "a direction must have norm 1", f"norm {norm:.4g}", todo)
