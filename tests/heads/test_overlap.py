import numpy as np
import pytest
import torch

from refusal_utils.heads.overlap import HeadOverlap, top_heads


def overlap(contribution, k, n_draws=400):
    names = tuple(f"category {c}" for c in range(contribution.shape[2]))
    return HeadOverlap.from_contribution(contribution, k, names, n_draws)


def test_top_heads_are_the_largest_by_sign_and_never_more_than_there_are():
    contribution = torch.tensor([[0.1, -9.0, 3.0], [2.0, 0.0, 0.5]])
    assert top_heads(contribution, 3) == [(0, 2), (1, 0), (1, 2)]
    assert len(top_heads(contribution, 7)) == 6
    with pytest.raises(ValueError, match="^top_heads: k must be at least 1; got 0"):
        top_heads(contribution, 0)


def test_overlap_is_one_for_the_same_heads_and_zero_for_others():
    heads = [(0, slice(0, 2)), (1, slice(1, 3)), (0, slice(1, 3)), (0, slice(0, 2))]
    contribution = torch.zeros(2, 4, 4)
    for c, (layer, own) in enumerate(heads):
        contribution[layer, own, c] = torch.tensor([2.0, 1.0])
    expected = [[1, 0, 1 / 3, 1], [0, 1, 0, 0], [1 / 3, 0, 1, 1 / 3], [1, 0, 1 / 3, 1]]
    found = overlap(contribution, 2, n_draws=5)
    assert found.table().to_numpy() == pytest.approx(np.array(expected))
    assert found.observed == pytest.approx((1 + 2 / 3) / 6)


def test_the_null_of_the_overlap_keeps_the_layers():
    """Categories that use the same layers but other heads overlap no more than the null; the same heads do."""
    generator = torch.Generator().manual_seed(0)
    by_layer = torch.zeros(6, 16, 5)
    by_layer[4:] = torch.rand(2, 16, 5, generator=generator)
    other_heads = overlap(by_layer, 8)
    assert 0.01 < other_heads.p_value < 0.99
    everywhere = overlap(torch.rand(6, 16, 5, generator=generator), 8)
    assert float(other_heads.null.mean()) > 2 * float(everywhere.null.mean())  # a null over all layers is too easy
    same_heads = overlap(by_layer[:, :, :1].expand(-1, -1, 5).clone(), 8)
    assert same_heads.observed == 1
    assert same_heads.p_value == pytest.approx(1 / 401)


def test_asking_for_more_heads_than_there_are_compares_all_of_them():
    found = overlap(torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)), 7, n_draws=20)
    assert (found.k, found.observed, found.p_value) == (6, 1, 1)
    with pytest.raises(ValueError, match="^top_heads: k must be at least 1; got 0"):
        overlap(torch.randn(2, 3, 4), 0)
