"""The space that several directions span: how many dimensions it has, what they share, how two such spaces lie."""

import torch
from jaxtyping import Float
from scipy.linalg import subspace_angles
from torch import Tensor

from ..directions.estimation import normalize


def effective_rank(directions: Float[Tensor, "category d_model"]) -> float:
    """exp of the entropy of the normalised singular values: k for k orthogonal directions, 1 for k equal ones.

    Directions are scaled to norm 1 first, and not centred. Source: Roy & Vetterli 2007.

    >>> effective_rank(torch.eye(3))
    3.0
    """
    share = torch.linalg.svdvals(normalize(directions).double())
    share = share / share.sum()
    return round(float(torch.exp(torch.special.entr(share).sum())), 6)


def participation_ratio(directions: Float[Tensor, "category d_model"]) -> float:
    """(sum of eigenvalues)^2 / (sum of squared eigenvalues) of the directions' second moments: between 1 and k."""
    eigenvalues = torch.linalg.svdvals(normalize(directions).double()).square()
    return float(eigenvalues.sum().square() / eigenvalues.square().sum())


def common_axis(directions: Float[Tensor, "category d_model"]) -> tuple[Float[Tensor, " d_model"], float]:
    """(the one axis closest to all directions, the share of their squared length on it).

    The first right singular vector of the unit directions, signed so that most of them point along it. The share is
    1 for equal directions and 1/k for k orthogonal ones.
    """
    unit = normalize(directions).double()
    _, singular, rows = torch.linalg.svd(unit, full_matrices=False)
    axis = rows[0] * torch.sign((unit @ rows[0]).sum())
    return axis.float(), float(singular[0].square() / singular.square().sum())


def principal_angles(
    first: Float[Tensor, "category d_model"], second: Float[Tensor, "other_category d_model"]
) -> Float[Tensor, " rank"]:
    """The angles in degrees between the spans of two sets of directions, smallest first: 0 where they share an axis.

    Source: Knyazev & Argentati 2002, as implemented in scipy.
    """
    angles = subspace_angles(first.double().T.numpy(), second.double().T.numpy())
    return torch.as_tensor(angles, dtype=torch.float64).rad2deg().flip(0).float()
