import pytest
import torch

from refusal_utils.directions.ablation import ablate, orthonormal_basis, project
from refusal_utils.directions.estimation import normalize

from .planted import planted


def test_project_gives_the_signed_length_and_needs_a_unit_direction():
    direction = normalize(torch.tensor([1.0, 2.0, 2.0]))
    points = torch.tensor([-3.0, 0.5, 4.0])[:, None] * direction
    torch.testing.assert_close(project(points, direction), torch.tensor([-3.0, 0.5, 4.0]))
    with pytest.raises(ValueError, match="^project: a direction must have norm 1; got norm 3"):
        project(points, 3 * direction)


def test_ablate_leaves_nothing_along_the_direction_and_all_else_alone():
    activations, _, direction = planted(50)
    ablated = ablate(activations, direction)
    assert float(project(activations, direction).abs().max()) > 1  # before control
    assert float(project(ablated, direction).abs().max()) < 1e-5
    across = orthonormal_basis(torch.eye(64) - torch.outer(direction, direction))
    torch.testing.assert_close(ablated @ across.T, activations @ across.T, atol=1e-5, rtol=0)


def test_ablate_is_idempotent():
    activations, _, direction = planted(50)
    once = ablate(activations, direction)
    torch.testing.assert_close(ablate(once, direction), once, atol=1e-6, rtol=0)


def test_ablate_of_a_span_does_not_depend_on_the_vectors_that_span_it():
    activations, _, first = planted(50)
    second = normalize(first + 0.3 * torch.randn(64, generator=torch.Generator().manual_seed(3)))
    third = normalize(first - 2 * second)
    both, other = (ablate(activations, torch.stack(pair)) for pair in ((first, second), (third, first)))
    torch.testing.assert_close(both, other, atol=1e-5, rtol=0)
    # before control: ablating one after the other does not remove the span of oblique directions
    in_turn = ablate(ablate(activations, first), second)
    assert float(project(in_turn, first).abs().max()) > 1e-2


def test_ablate_rejects_another_width_and_another_norm():
    with pytest.raises(ValueError, match="^ablate: .* same width; got 8 and 4"):
        ablate(torch.randn(2, 8), torch.tensor([1.0, 0, 0, 0]))
    with pytest.raises(ValueError, match="^ablate: a direction must have norm 1; got norm 2"):
        ablate(torch.randn(2, 4), torch.tensor([[1.0, 0, 0, 0], [2.0, 0, 0, 0]]))


def test_orthonormal_basis_drops_dependent_rows():
    basis = orthonormal_basis(torch.tensor([[1.0, 1, 0], [2.0, 2, 0], [0, 0, 3.0]]))
    assert basis.shape == (2, 3)
    torch.testing.assert_close(basis @ basis.T, torch.eye(2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_dependent_rows_are_dropped_whatever_their_length(scale):
    one, other = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    assert len(orthonormal_basis(scale * torch.stack([one, other, one + other]))) == 2
