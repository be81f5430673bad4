"""Weighted ridge mean difference (WRMD): prompts count by how consistently the model refuses or answers them."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..prompts.categories import BENIGN
from .method import Confidence, Sides, StateMethod
from .ridge_mean_difference import OPTIONS, SOURCE, RidgeUnit, weighted_ridge_difference

FLOOR = 0.01  # the least weight of a prompt


def find(
    refused: Sides,
    answered: Float[Tensor, "answered_prompt d_model"],
    confidence: Confidence | None,
    ridge: float,
    ridge_unit: RidgeUnit,
) -> dict[str, Float[Tensor, " d_model"]]:
    """The weighted ridge difference of every category; without a confidence all weights are equal, which is RMD.

    The weight is |confidence|, at least 0.01. The source sorts prompts into the two sides by the sign of the
    confidence; here a draw may hold a refused prompt that the model mostly answers, or the reverse: it has the least
    weight.
    """
    if confidence is None:
        confidence = {name: torch.ones(len(states)) for name, states in refused.items()}
        confidence[BENIGN] = -torch.ones(len(answered))
    shares = _shares(-confidence[BENIGN])
    return {
        name: weighted_ridge_difference(states, answered, _shares(confidence[name]), shares, ridge, ridge_unit)
        for name, states in refused.items()
    }


def _shares(agreement: Float[Tensor, " prompt"]) -> Float[Tensor, " prompt"]:
    weights = agreement.double().clamp(min=FLOOR)
    return weights / weights.sum()


METHOD = StateMethod(
    name="weighted_ridge_mean_difference",
    title="Weighted ridge mean difference (WRMD)",
    source=SOURCE,
    needs=("confidence",),
    options=OPTIONS,
    at_least=2,
    reads="resid_post",
    find=find,
)
