"""Planted shares: components that contribute a known amount, and what the statistics make of them."""

import numpy as np
import pytest
import torch

from refusal_utils.heads.contributions import contribution_intervals, contribution_p, contributions, per_category
from refusal_utils.prompts.categories import BENIGN, CATEGORY_IDS

HEADS = {(0, 1): 1.0, (2, 3): 2.0}  # of 3 x 4, those that contribute, and how much


def planted(seed, n=40, effect=1.0):
    """Shares of 3 x 4 heads of different spread, of which two contribute."""
    generator = torch.Generator().manual_seed(seed)
    refused, answered = torch.randn(2, n, 3, 4, generator=generator) * torch.linspace(0.5, 2, 12).view(3, 4)
    for (layer, head), size in HEADS.items():
        refused[:, layer, head] += size * effect
    return refused, answered


def test_contributions_are_differences_of_means_and_sum_to_the_gap():
    refused, answered = planted(0)
    found = contributions(refused, answered)
    assert found.numpy() == pytest.approx(refused.numpy().mean(0) - answered.numpy().mean(0), abs=1e-5)
    gap = refused.sum((1, 2)).mean() - answered.sum((1, 2)).mean()
    assert float(found.sum()) == pytest.approx(float(gap), abs=1e-4)
    with pytest.raises(ValueError, match="^contributions: there must be at least 4 answered prompts; got 3"):
        contributions(refused, answered[:3])


def test_intervals_cover_the_truth_at_their_rate():
    truth = torch.zeros(3, 4)
    for head, size in HEADS.items():
        truth[head] = size
    inside = []
    for seed in range(100):
        low, high = contribution_intervals(*planted(seed), n_draws=300, seed=seed)
        inside.append((low <= truth) & (truth <= high))
    assert 0.92 <= float(torch.stack(inside).double().mean()) <= 0.98


def test_p_values_find_the_planted_heads_and_rarely_others():
    hits, false = [], []
    for seed in range(400):
        significant = contribution_p(*planted(seed, effect=1.5)) < 0.05
        found = {tuple(head) for head in significant.nonzero().tolist()}
        hits.append(found >= HEADS.keys())
        false.append(len(found - HEADS.keys()) / max(1, len(found)))
    assert np.mean(hits) > 0.95
    assert np.mean(false) <= 0.06  # false discovery rate 0.05, up to chance in 400 draws


def test_per_category_compares_each_category_with_the_benign_prompts_along_its_own_direction():
    labels = [name for name in (*CATEGORY_IDS, BENIGN) for _ in range(5)]
    values = np.random.default_rng(0).normal(size=(60, 2, 3, 11)).astype(np.float32)
    order = np.random.default_rng(1).permutation(60)  # rows in any order
    found = per_category(contributions, torch.from_numpy(values[order]), [labels[row] for row in order], CATEGORY_IDS)
    for c in range(11):
        expected = values[5 * c : 5 * c + 5, ..., c].mean(0) - values[55:, ..., c].mean(0)
        assert found[..., c].numpy() == pytest.approx(expected, abs=1e-5)
    both = per_category(lambda *sides: torch.stack(sides[:1]).mean(1), torch.from_numpy(values), labels, CATEGORY_IDS)
    assert both.shape == (1, 2, 3, 11)  # a statistic may have any shape
    with pytest.raises(ValueError, match="^per_category: shares must have one row per label and one column"):
        per_category(contributions, torch.from_numpy(values[..., :4]), labels, CATEGORY_IDS)
    with pytest.raises(ValueError, match="^per_category: shares must have one row per label and one column"):
        per_category(contributions, torch.from_numpy(values), labels[1:], CATEGORY_IDS)
