"""Cosines between directions in three metrics, and between estimates of one direction."""

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from ..checks import require
from .estimation import mean_direction, normalize


def cosine_matrix(directions: Float[Tensor, "category d_model"]) -> Float[Tensor, "category category"]:
    """Plain cosines between all pairs of `directions`: symmetric, with ones on the diagonal.

    The directions need not have norm 1. Raises `ValueError` for a zero vector.

    >>> cosine_matrix(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))[0, 1]
    tensor(0.7071)
    """
    unit = normalize(directions).double()
    return (unit @ unit.T).clamp(-1, 1).fill_diagonal_(1.0).float()


def cosine_frame(directions: Float[Tensor, "category d_model"], names: Sequence[str]) -> pd.DataFrame:
    """`cosine_matrix` with `names` on both sides."""
    return pd.DataFrame(cosine_matrix(directions).numpy(), index=list(names), columns=list(names))


def centred_cosines(directions: Float[Tensor, "category d_model"]) -> Float[Tensor, "category category"]:
    """Cosines after subtracting the mean of the unit directions: what remains without the part they share.

    Centring alone pushes the mean off-diagonal cosine of k directions to about -1/(k - 1), so read the pattern, not the
    level.
    """
    unit = normalize(directions)
    return cosine_matrix(unit - unit.mean(0))


def whitened_cosines(
    directions: Float[Tensor, "category d_model"], residuals: Float[Tensor, "prompt d_model"]
) -> Float[Tensor, "category category"]:
    """Cosines in the metric in which `residuals` (activations minus their class means) have unit covariance.

    The inner product is r' C^-1 s, where C is the covariance shrunk towards a multiple of the identity.
    Source: Ledoit & Wolf 2004 (scikit-learn's implementation).
    """
    covariance, _ = ledoit_wolf(residuals.double().numpy(), assume_centered=True)
    lower = torch.linalg.cholesky(torch.as_tensor(covariance))
    white = torch.linalg.solve_triangular(lower, directions.double().T, upper=False).T
    return cosine_matrix(white.float())


def off_diagonal(matrix: Float[Tensor, "*draw category category"]) -> Float[Tensor, "*draw pair"]:
    """The entries above the diagonal, row by row: each unordered pair once.

    >>> off_diagonal(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([2.])
    """
    n = matrix.shape[-1]
    rows, columns = torch.triu_indices(n, n, offset=1)
    return matrix[..., rows, columns]


def split_half_cosine(
    refused: Float[Tensor, "refused_prompt d_model"],
    answered: Float[Tensor, "answered_prompt d_model"],
    n_splits: int = 50,
    seed: int = 0,
) -> float:
    """The mean cosine between the directions of two random disjoint halves of both sides, over `n_splits` splits.

    Raises `ValueError` for fewer than 4 prompts on a side.
    """
    for name, side in (("refused", refused), ("answered", answered)):
        must = f"there must be at least 4 {name} prompts"
        require(len(side) >= 4, "split_half_cosine", must, len(side), "Add prompts.")
    generator = torch.Generator().manual_seed(seed)
    cosines = []
    for _ in range(n_splits):
        halves = [side[torch.randperm(len(side), generator=generator)] for side in (refused, answered)]
        first = mean_direction(*(side[: len(side) // 2] for side in halves))
        second = mean_direction(*(side[len(side) // 2 :] for side in halves))
        cosines.append(float(first @ second))
    return sum(cosines) / len(cosines)
