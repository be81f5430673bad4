from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from refusal_utils.directions.estimation import (
    ablate,
    centred_cosines,
    cosine_matrix,
    feature_direction,
    mean_difference,
    mean_direction,
    normalize,
    off_diagonal,
    orthonormal_basis,
    project,
    split_half_cosine,
    whitened_cosines,
)


def planted(n: int = 400, d_model: int = 64, gap: float = 5.0, seed: int = 0):
    """(refused, answered, direction): two clouds `gap` apart along a known direction."""
    generator = torch.Generator().manual_seed(seed)
    direction = normalize(torch.randn(d_model, generator=generator))
    answered = torch.randn(n, d_model, generator=generator)
    return torch.randn(n, d_model, generator=generator) + gap * direction, answered, direction


def rotation(d_model: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(d_model, d_model, generator=torch.Generator().manual_seed(7)))[0]


def test_mean_direction_recovers_a_planted_direction():
    refused, answered, direction = planted()
    assert float(mean_direction(refused, answered) @ direction) > 0.97
    # before: the same prompts without the plant have nothing to do with it
    assert abs(float(mean_direction(refused - 5.0 * direction, answered) @ direction)) < 0.5


def test_mean_difference_equals_numpy_in_float64():
    refused, answered, _ = planted()
    expected = refused.numpy().astype(np.float64).mean(0) - answered.numpy().astype(np.float64).mean(0)
    np.testing.assert_allclose(mean_difference(refused, answered).numpy(), expected, rtol=1e-6)


def test_mean_difference_of_bfloat16_does_not_accumulate_in_bfloat16():
    refused = torch.full((4096, 4), 1.0, dtype=torch.bfloat16)
    refused[::2] = 1.0078125
    naive = float(refused.cumsum(0)[-1, 0] / len(refused))
    exact = float(mean_difference(refused, torch.zeros(2, 4))[0])
    assert abs(naive - 1.00390625) > 1e-3  # before: summing in bfloat16 loses it
    assert exact == pytest.approx(1.00390625, abs=1e-6)


def test_mean_direction_has_norm_one_and_flips_with_its_sides():
    refused, answered, _ = planted()
    direction = mean_direction(refused, answered)
    assert float(direction.norm()) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(mean_direction(answered, refused), -direction)


def test_mean_direction_rejects_coincident_means():
    same = torch.randn(32, 8)
    with pytest.raises(ValueError, match="the two means must differ; got norm"):
        mean_direction(same, same.clone())
    with pytest.raises(ValueError, match="the two means must differ"):
        mean_direction(same + 1e-8, same)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_mean_difference_rejects_values_that_are_not_finite(bad):
    refused = torch.randn(4, 8)
    refused[2, 3] = bad
    with pytest.raises(ValueError, match="the refused activations must be finite; got 1 values"):
        mean_difference(refused, torch.randn(4, 8))


def test_mean_difference_rejects_an_empty_side():
    with pytest.raises(ValueError, match="at least one answered prompt; got none"):
        mean_difference(torch.randn(4, 8), torch.empty(0, 8))


def test_cosine_matrix_survives_rotation_and_scaling():
    vectors = torch.randn(11, 32, generator=torch.Generator().manual_seed(1))
    cosines = cosine_matrix(vectors)
    scaled = vectors * torch.arange(1, 12)[:, None]
    torch.testing.assert_close(cosine_matrix(scaled @ rotation(32)), cosines, atol=1e-5, rtol=0)
    assert not torch.allclose(cosine_matrix(vectors + 1.0), cosines, atol=1e-2)  # before: a translation does change it


def test_cosine_matrix_equals_numpy_and_is_symmetric_with_unit_diagonal():
    vectors = torch.randn(11, 32, generator=torch.Generator().manual_seed(2))
    x = vectors.numpy().astype(np.float64)
    expected = x @ x.T / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(x, axis=1))
    np.testing.assert_allclose(cosine_matrix(vectors).numpy(), expected, atol=1e-6)
    assert torch.equal(cosine_matrix(vectors), cosine_matrix(vectors).T)
    assert torch.equal(cosine_matrix(vectors).diagonal(), torch.ones(11))


def test_cosine_matrix_rejects_a_zero_vector():
    with pytest.raises(ValueError, match="every vector must have a direction; got 1 zero vectors"):
        cosine_matrix(torch.stack([torch.zeros(4), torch.ones(4)]))


def test_off_diagonal_takes_every_pair_once():
    matrix = torch.arange(16.0).reshape(4, 4)
    expected = [float(matrix[i, j]) for i in range(4) for j in range(i + 1, 4)]
    assert off_diagonal(matrix).tolist() == expected


def test_project_gives_the_signed_length_and_needs_a_unit_direction():
    direction = normalize(torch.tensor([1.0, 2.0, 2.0]))
    points = torch.tensor([-3.0, 0.5, 4.0])[:, None] * direction
    torch.testing.assert_close(project(points, direction), torch.tensor([-3.0, 0.5, 4.0]))
    with pytest.raises(ValueError, match="project: a direction must have norm 1; got norm 3"):
        project(points, 3 * direction)


def test_ablate_leaves_nothing_along_the_direction_and_all_else_alone():
    activations, _, direction = planted(50)
    ablated = ablate(activations, direction)
    assert float(project(activations, direction).abs().max()) > 1  # before
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
    torch.testing.assert_close(
        ablate(activations, torch.stack([first, second])),
        ablate(activations, torch.stack([third, first])),
        atol=1e-5,
        rtol=0,
    )
    # before: one after the other does not remove the span of directions that are not orthogonal
    in_turn = ablate(ablate(activations, first), second)
    assert float(project(in_turn, first).abs().max()) > 1e-2


def test_ablate_rejects_another_width_and_another_norm():
    with pytest.raises(ValueError, match="same width; got 8 and 4"):
        ablate(torch.randn(2, 8), torch.tensor([1.0, 0, 0, 0]))
    with pytest.raises(ValueError, match="a direction must have norm 1; got norm 2"):
        ablate(torch.randn(2, 4), torch.tensor([2.0, 0, 0, 0]))


def test_orthonormal_basis_drops_dependent_rows():
    basis = orthonormal_basis(torch.tensor([[1.0, 1, 0], [2.0, 2, 0], [0, 0, 3.0]]))
    assert basis.shape == (2, 3)
    torch.testing.assert_close(basis @ basis.T, torch.eye(2), atol=1e-6, rtol=0)


def test_split_half_cosine_rises_with_the_number_of_prompts_and_needs_four():
    refused, answered, _ = planted(200, gap=2.0)
    few, many = split_half_cosine(refused[:8], answered[:8]), split_half_cosine(refused, answered)
    assert few < many
    assert many > 0.7
    with pytest.raises(ValueError, match="at least 4 refused prompts; got 3"):
        split_half_cosine(refused[:3], answered)


def test_centred_cosines_take_off_what_all_share():
    axes = torch.eye(5)
    shared = 0.9 * axes[0] + (1 - 0.81) ** 0.5 * axes[1:]
    assert float(off_diagonal(cosine_matrix(shared)).min()) > 0.8
    assert torch.allclose(off_diagonal(centred_cosines(shared)), torch.full((6,), -1 / 3), atol=1e-4)


def test_whitened_cosines_undo_a_stretch_of_the_space():
    generator = torch.Generator().manual_seed(0)
    directions = normalize(torch.randn(4, 6, generator=generator))
    noise = torch.randn(20_000, 6, generator=generator)
    stretch = torch.diag(torch.tensor([10.0, 3.0, 1.0, 1.0, 0.5, 0.2]))
    raw, white = cosine_matrix(directions @ stretch), whitened_cosines(directions @ stretch, noise @ stretch)
    assert (raw - cosine_matrix(directions)).abs().max() > 0.3
    assert (white - cosine_matrix(directions)).abs().max() < 0.05


def test_feature_direction_recovers_the_axis_of_length():
    generator = torch.Generator().manual_seed(0)
    length = torch.rand(400, generator=generator)
    axis = normalize(torch.randn(20, generator=generator))
    found = feature_direction(0.2 * torch.randn(400, 20, generator=generator) + 5 * length[:, None] * axis, length)
    assert float(found @ axis) > 0.99
    with pytest.raises(ValueError, match="^feature_direction: the feature must vary; got 1 for all 4 prompts"):
        feature_direction(torch.randn(4, 3), torch.ones(4))


@pytest.mark.parametrize(("name", "layer", "norm"), [("gemma-2b-it", 10, 10.064), ("qwen-1_8b-chat", 15, 26.287)])
def test_real_directions_equal_their_mean_differences(name, layer, norm):
    path = Path(__file__).parent.parent.parent.parent / "shared/data/directions" / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip("the public directions are not here")
    stored = load_file(path)
    difference = stored["mean_diffs"][-2, layer].float()
    assert torch.equal(stored["direction"].float(), difference)
    assert float(difference.norm()) == pytest.approx(norm, abs=1e-3)
    assert float(normalize(difference) @ stored["direction"].float()) == pytest.approx(norm, abs=1e-3)
    at_layer_0 = stored["mean_diffs"][-2, 0].double()
    rows = torch.randn(8, len(at_layer_0)) * 10
    with pytest.raises(ValueError, match=r"^(mean_direction|normalize): "):
        mean_direction(rows + at_layer_0, rows)
