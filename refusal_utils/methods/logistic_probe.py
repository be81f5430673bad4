"""Logistic probe: the weights of a logistic regression that tells refused from answered prompts."""

import torch
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from .difference_in_means import difference
from .method import StateMethod, per_category


def probe_weights(
    refused: Float[Tensor, "refused_prompt d_model"], answered: Float[Tensor, "answered_prompt d_model"], ridge: float
) -> Float[Tensor, " d_model"]:
    """The weights of scikit-learn's logistic regression, in which both sides count equally.

    `ridge` multiplies half the squared norm of the weights (scikit-learn's 1/C). States are divided by one number,
    their root mean square about the mean: a scale per feature would tie the probe to the axes. Raises `ValueError` if
    the two means coincide.
    """
    difference(refused, answered)  # raises if there is none
    states = torch.cat([refused, answered]).double()
    states = states - states.mean(0)
    labels = torch.arange(len(states)) < len(refused)
    model = LogisticRegression(C=1 / ridge, class_weight="balanced", tol=1e-6, max_iter=10_000)
    weights = model.fit((states / states.square().mean().sqrt()).numpy(), labels.numpy()).coef_[0]
    return torch.as_tensor(weights).float()


METHOD = StateMethod(
    name="logistic_probe",
    title="Logistic probe",
    source="Alain and Bengio, arXiv 1610.01644; Li et al., arXiv 2306.03341",
    options={"ridge": 1.0},
    find=per_category(probe_weights),
)
