"""RFM-AGOP: its gradients are those of its regression, and it finds a planted subspace in order of importance."""

import pytest
import torch
from torch import Tensor

from refusal_utils.directions import DirectionSet, Provenance
from refusal_utils.methods import METHODS
from refusal_utils.methods.rfm_agop import gradient_product

D_MODEL = 16


def smallest_cosine(first: Tensor, second: Tensor) -> float:
    """The cosine of the largest principal angle between the spans of two sets of orthonormal rows."""
    return float(torch.linalg.svdvals(first.double() @ second.double().T).min())


def fit(refused: Tensor, answered: Tensor, **options: object) -> DirectionSet:
    return METHODS["rfm_agop"].find_directions({"advice": refused}, answered, Provenance(3), **options)


def planted(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """(orthonormal plane, refused, answered): refused prompts lie apart in two ways, along either axis of the plane."""
    draw = torch.Generator().manual_seed(seed)
    plane = torch.linalg.qr(torch.randn(D_MODEL, 2, generator=draw))[0].T
    refused, answered = (torch.randn(400, D_MODEL, generator=draw) for _ in range(2))
    refused[:200] += 4 * plane[0]
    refused[200:] += 4 * plane[1]
    return plane, refused, answered


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_plane_is_recovered(seed):
    plane, refused, answered = planted(seed)
    found = fit(refused, answered, k=2)
    assert smallest_cosine(found.vectors, plane) > 0.9
    between = torch.nn.functional.normalize(refused.mean(0) - answered.mean(0), dim=0)
    assert abs(float(between @ (plane[0] - plane[1]))) < 0.3  # before control: the means hold one of the two


def test_one_planted_direction_comes_first_and_holds_nearly_all():
    draw = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(D_MODEL, generator=draw), dim=0)
    refused, answered = (torch.randn(600, D_MODEL, generator=draw) for _ in range(2))
    refused = refused + 3 * direction
    found = fit(refused, answered)
    assert found.names == ("rfm_1", "rfm_2", "rfm_3")
    assert float(found["rfm_1"] @ direction) > 0.95
    eigenvalues = found.provenance.settings["norms"]
    assert eigenvalues == sorted(eigenvalues, reverse=True)
    assert eigenvalues[0] > 5 * eigenvalues[1]
    assert float((found.vectors @ found.vectors.T - torch.eye(3)).abs().max()) < 1e-5


def test_the_product_is_that_of_gradients_by_autograd():
    draw = torch.Generator().manual_seed(1)
    states = torch.randn(12, 5, generator=draw, dtype=torch.float64)
    labels = torch.where(torch.arange(12) < 6, 1.0, -1.0).double()
    root = torch.randn(5, 5, generator=draw, dtype=torch.float64)
    metric = root @ root.T

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-((x - y) @ metric @ (x - y)).sqrt() / 3)

    whole = torch.stack([torch.stack([kernel(x, y) if i != j else torch.ones(()).double()
                                      for j, y in enumerate(states)]) for i, x in enumerate(states)])  # fmt: skip
    weights = torch.linalg.solve(whole + 0.1 * torch.eye(12), labels)
    product = torch.zeros(5, 5, dtype=torch.float64)
    for i, state in enumerate(states):
        point = state.clone().requires_grad_()
        others = sum(weights[j] * kernel(point, states[j]) for j in range(12) if j != i)
        gradient = torch.autograd.grad(others, point)[0]
        product += torch.outer(gradient, gradient) / 12
    torch.testing.assert_close(gradient_product(states, labels, metric, 3.0, 0.1), product, rtol=1e-8, atol=1e-12)


def test_k_is_between_one_and_the_width():
    _, refused, answered = planted(0)
    for k in (0, D_MODEL + 1):
        with pytest.raises(ValueError, match=f"^rfm_agop: k must be between 1 and {D_MODEL}; got {k}"):
            fit(refused, answered, k=k)
