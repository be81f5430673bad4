"""Linear discriminant analysis: the difference in means, whitened by the shrunk covariance within both sides."""

from typing import Literal

import torch
from jaxtyping import Float
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor

from ..checks import require
from .difference_in_means import difference
from .method import StateMethod, per_category
from .ridge_mean_difference import whiten


def discriminant(
    refused: Float[Tensor, "refused_prompt d_model"],
    answered: Float[Tensor, "answered_prompt d_model"],
    shrinkage: float | Literal["auto"],
) -> Float[Tensor, " d_model"]:
    """The normal of the plane that scikit-learn's `LinearDiscriminantAnalysis` finds between the two sides.

    The covariance of each side is shrunk towards a multiple of the identity by `shrinkage` (above 0, at most 1), or by
    what Ledoit and Wolf (2004) derive from the states. scikit-learn's own "auto" scales every feature first, which ties
    the result to the axes, and its solver takes minutes at the width of a large model. Raises `ValueError` if the two
    means coincide, and for another `shrinkage`.
    """
    must, todo = 'shrinkage must be "auto" or a number above 0, at most 1', "Use the default."
    require(shrinkage == "auto" or 0 < float(shrinkage) <= 1, "discriminant", must, repr(shrinkage), todo)
    between, n = difference(refused, answered).double(), len(refused) + len(answered)
    rows, penalty = [], 0.0
    for side in (refused.double(), answered.double()):
        centred = side - side.mean(0)
        share = float(ledoit_wolf_shrinkage(side.numpy()) if shrinkage == "auto" else shrinkage)
        rows.append(centred * ((1 - share) / n) ** 0.5)
        penalty += share * float(centred.square().sum()) / n / side.shape[1]
    return whiten(between, torch.cat(rows), penalty).float()


METHOD = StateMethod(
    name="lda",
    title="Linear discriminant",
    source="Fisher 1936; Ledoit and Wolf 2004",
    options={"shrinkage": "auto"},
    at_least=2,
    find=per_category(discriminant),
)
