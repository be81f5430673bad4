"""RFM-AGOP: an ordered subspace of refusal, from the gradients of a kernel machine that learns its own metric."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import require
from .difference_in_means import difference
from .logistic_probe import probe_weights
from .method import Sides, StateMethod

COVARIANCE_RANK = 10


def find(
    refused: Sides,
    answered: Float[Tensor, "answered_prompt d_model"],
    k: int,
    n_rounds: int,
    bandwidth: float,
    ridge: float,
    beta: float,
    decay: float,
) -> dict[str, Float[Tensor, " d_model"]]:
    """The `k` first eigenvectors of the learned metric, `rfm_1` first, each as long as its eigenvalue.

    So the norms in the provenance are the eigenvalues mu; the source ablates direction i with weight mu_i / mu_1. All
    categories are one side, since a subspace is sought. A kernel ridge regression tells the sides apart with the kernel
    exp(-distance / bandwidth), whose distance is measured in the metric M; the mean outer product of its gradients at
    the prompts moves M. M starts as `beta` ww' + (1 - `beta`) times the first ten components of the covariance, with
    the weights w of a logistic probe, and is kept at trace d_model, as the two parts are. After every round M is
    `decay` M + (1 - `decay`) times the new product. States are divided by their root mean square about the mean. The
    source fixes the kernel, ridge, bandwidth, rounds and rank; `beta`, `decay` and both scales are ours, as its values
    were not found. Raises `ValueError` if the two means coincide, or if `k` is not between 1 and d_model.
    """
    pooled = torch.cat([*refused.values()])
    difference(pooled, answered)  # raises if there is none
    d_model = pooled.shape[1]
    require(1 <= k <= d_model, "rfm_agop", f"k must be between 1 and {d_model}", k, "Ask for fewer directions.")
    states = torch.cat([pooled, answered]).double()
    states = states - states.mean(0)
    states = states / states.square().mean().sqrt()
    labels = torch.where(torch.arange(len(states)) < len(pooled), 1.0, -1.0).double()
    metric = _first_metric(states, probe_weights(pooled, answered, ridge=1.0).double(), beta)
    for _ in range(n_rounds):
        metric = decay * metric + (1 - decay) * _scaled(gradient_product(states, labels, metric, bandwidth, ridge))
    values, axes = torch.linalg.eigh(metric)
    return {f"rfm_{i + 1}": (values[-1 - i] * axes[:, -1 - i]).float() for i in range(k)}


def gradient_product(
    states: Float[Tensor, "prompt d_model"],
    labels: Float[Tensor, " prompt"],
    metric: Float[Tensor, "d_model d_model"],
    bandwidth: float,
    ridge: float,
) -> Float[Tensor, "d_model d_model"]:
    """The average gradient outer product (AGOP) of a kernel ridge regression of `labels` on `states`, at these states.

    A prompt has no part in the gradient at its own state, where the kernel has a kink.
    Source: Radhakrishnan et al., arXiv 2212.13881, section 2.
    """
    seen = states @ metric
    squares = (seen * states).sum(1)
    distance = (squares[:, None] + squares - 2 * seen @ states.T).clamp(min=0).sqrt()
    distance.fill_diagonal_(0)
    kernel = torch.exp(-distance / bandwidth)
    root = torch.linalg.cholesky(kernel + ridge * torch.eye(len(states), dtype=states.dtype))
    weights = torch.cholesky_solve(labels[:, None], root)[:, 0]
    near = distance < 1e-6 * distance.max()  # the same state, up to rounding
    pull = (kernel * weights / distance.masked_fill(near, 1.0)).masked_fill(near, 0.0) / bandwidth
    gradients = pull @ seen - pull.sum(1, keepdim=True) * seen
    return gradients.T @ gradients / len(states)


def _first_metric(states: Tensor, probe: Tensor, beta: float) -> Tensor:
    axes = torch.linalg.svd(states, full_matrices=False)
    scaled = (axes.S[:COVARIANCE_RANK, None] * axes.Vh[:COVARIANCE_RANK]) / len(states) ** 0.5
    return beta * _scaled(torch.outer(probe, probe)) + (1 - beta) * _scaled(scaled.T @ scaled)


def _scaled(matrix: Tensor) -> Tensor:
    return matrix * (len(matrix) / matrix.trace())


METHOD = StateMethod(
    name="rfm_agop",
    title="Recursive feature machine (RFM-AGOP)",
    source="arXiv 2607.02396; Radhakrishnan et al., arXiv 2212.13881",
    options={"k": 3, "n_rounds": 6, "bandwidth": 30.0, "ridge": 1e-3, "beta": 0.5, "decay": 0.5},
    at_least=2,
    find=find,
)
