import numpy as np
import pytest
import torch

from refusal_utils.directions.comparison import (
    centred_cosines,
    cosine_matrix,
    off_diagonal,
    split_half_cosine,
    whitened_cosines,
)
from refusal_utils.directions.estimation import normalize

from .planted import planted


def rotation(d_model: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(d_model, d_model, generator=torch.Generator().manual_seed(7)))[0]


def test_cosine_matrix_survives_rotation_and_scaling():
    vectors = torch.randn(11, 32, generator=torch.Generator().manual_seed(1))
    cosines = cosine_matrix(vectors)
    scaled = vectors * torch.arange(1, 12)[:, None]
    torch.testing.assert_close(cosine_matrix(scaled @ rotation(32)), cosines, atol=1e-5, rtol=0)
    assert not torch.allclose(cosine_matrix(vectors + 1.0), cosines, atol=1e-2)  # before: a translation changes it


def test_cosine_matrix_equals_numpy_and_is_symmetric_with_unit_diagonal():
    vectors = torch.randn(11, 32, generator=torch.Generator().manual_seed(2))
    x = vectors.numpy().astype(np.float64)
    expected = x @ x.T / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(x, axis=1))
    np.testing.assert_allclose(cosine_matrix(vectors).numpy(), expected, atol=1e-6)
    assert torch.equal(cosine_matrix(vectors), cosine_matrix(vectors).T)
    assert torch.equal(cosine_matrix(vectors).diagonal(), torch.ones(11))


def test_off_diagonal_takes_every_pair_once():
    matrix = torch.arange(16.0).reshape(4, 4)
    expected = [float(matrix[i, j]) for i in range(4) for j in range(i + 1, 4)]
    assert off_diagonal(matrix).tolist() == expected


def test_split_half_cosine_rises_with_the_number_of_prompts_and_needs_four():
    refused, answered, _ = planted(200, gap=2.0)
    few, many = split_half_cosine(refused[:8], answered[:8]), split_half_cosine(refused, answered)
    assert few < many
    assert many > 0.7
    with pytest.raises(ValueError, match="^split_half_cosine: there must be at least 4 refused prompts; got 3"):
        split_half_cosine(refused[:3], answered)


@pytest.mark.parametrize("n", [4, 7])
def test_split_half_cosine_is_the_mean_over_disjoint_halves(n):
    refused, answered, _ = planted(n, gap=2.0)
    generator, expected = torch.Generator().manual_seed(3), []
    for _ in range(5):
        first, second = [], []
        for side in (refused, answered):
            order = torch.randperm(n, generator=generator).numpy()
            first.append(side.numpy()[order[: n // 2]].mean(0))
            second.append(side.numpy()[order[n // 2 :]].mean(0))
        one, other = first[0] - first[1], second[0] - second[1]
        expected.append(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    assert split_half_cosine(refused, answered, n_splits=5, seed=3) == pytest.approx(np.mean(expected), abs=1e-5)


def test_centred_cosines_remove_what_all_share():
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
