"""Linear discriminant analysis: the difference in means, whitened by the shrunk covariance within both sides."""

from typing import Literal

import torch
from jaxtyping import Float
from sklearn.covariance import LedoitWolf, ShrunkCovariance
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from .difference_in_means import difference
from .method import StateMethod, per_category


def discriminant(
    refused: Float[Tensor, "refused_prompt d_model"],
    answered: Float[Tensor, "answered_prompt d_model"],
    shrinkage: float | Literal["auto"],
) -> Float[Tensor, " d_model"]:
    """The normal of scikit-learn's discriminant plane between the two sides.

    The covariance of each side is shrunk towards a multiple of the identity by `shrinkage` (from 0 to 1), or by what
    Ledoit and Wolf (2004) derive from the states. scikit-learn's own "auto" scales every feature first, which ties the
    result to the axes. Raises `ValueError` if the two means coincide.
    """
    difference(refused, answered)  # raises if there is none
    states = torch.cat([refused, answered]).double().numpy()
    labels = torch.arange(len(states)) < len(refused)
    covariance = LedoitWolf() if shrinkage == "auto" else ShrunkCovariance(shrinkage=shrinkage)
    fitted = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=covariance).fit(states, labels.numpy())
    return torch.as_tensor(fitted.coef_[0]).float()


METHOD = StateMethod(
    name="lda",
    title="Linear discriminant",
    source="Fisher 1936; Ledoit and Wolf 2004",
    options={"shrinkage": "auto"},
    at_least=2,
    find=per_category(discriminant),
)
