"""Planted shares: heads that contribute a known amount, and what the statistics make of them."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr, ttest_rel

from refusal_utils.heads.statistics import (
    concentration,
    contribution_intervals,
    contribution_p,
    contributions,
    is_top,
    mean_changes,
    overlap,
    overlap_null,
    per_category,
    rank_test,
    top_by_category,
    top_heads,
    top_table,
)
from refusal_utils.prompts.categories import BENIGN, CATEGORY_IDS


def planted(seed, n=40, effect=1.0):
    """Shares of 3 x 4 heads; heads (0, 1) and (2, 3) contribute `effect` and twice that, the others nothing."""
    generator = torch.Generator().manual_seed(seed)
    refused, answered = torch.randn(2, n, 3, 4, generator=generator) * torch.linspace(0.5, 2, 12).view(3, 4)
    refused[:, 0, 1] += effect
    refused[:, 2, 3] += 2 * effect
    return refused, answered


def test_contributions_are_differences_of_means_and_add_up():
    refused, answered = planted(0)
    found = contributions(refused, answered)
    assert found.numpy() == pytest.approx(refused.numpy().mean(0) - answered.numpy().mean(0), abs=1e-5)
    whole = refused.sum((1, 2)).mean() - answered.sum((1, 2)).mean()
    assert float(found.sum()) == pytest.approx(float(whole), abs=1e-4)
    with pytest.raises(ValueError, match="contributions: at least 4 answered prompts; got 3"):
        contributions(refused, answered[:3])


def test_intervals_cover_the_truth_at_their_rate():
    truth = torch.zeros(3, 4)
    truth[0, 1], truth[2, 3] = 1.0, 2.0
    inside = []
    for seed in range(150):
        low, high = contribution_intervals(*planted(seed), n_draws=400, seed=seed)
        inside.append((low <= truth) & (truth <= high))
    assert 0.92 <= float(torch.stack(inside).double().mean()) <= 0.98


def test_p_values_find_the_planted_heads_and_rarely_others():
    hits, false = [], []
    for seed in range(400):
        significant = contribution_p(*planted(seed, effect=1.5)) < 0.05
        hits.append(bool(significant[0, 1] and significant[2, 3]))
        others = significant.clone()
        others[0, 1] = others[2, 3] = False
        false.append(int(others.sum()) / max(1, int(significant.sum())))
    assert np.mean(hits) > 0.95
    assert np.mean(false) <= 0.06  # the rate of false discoveries, 0.05 but for 400 draws


def test_top_heads_are_the_largest_and_signed():
    contribution = torch.tensor([[0.1, -9.0, 3.0], [2.0, 0.0, 0.5]])
    assert top_heads(contribution, 3).tolist() == [[0, 2], [1, 0], [1, 2]]


def test_overlap_is_one_for_the_same_heads_and_zero_for_others():
    first = torch.zeros(2, 4)
    first[0, :2] = torch.tensor([2.0, 1.0])
    second = torch.zeros(2, 4)
    second[1, 1:3] = torch.tensor([2.0, 1.0])
    third = torch.zeros(2, 4)
    third[0, 1:3] = torch.tensor([2.0, 1.0])
    found = overlap(torch.stack([first, second, third, first], dim=2), k=2)
    expected = [[1, 0, 1 / 3, 1], [0, 1, 0, 0], [1 / 3, 0, 1, 1 / 3], [1, 0, 1 / 3, 1]]
    assert found.numpy() == pytest.approx(np.array(expected))


def test_the_null_of_overlap_keeps_the_layers():
    """Categories that use the same layers but other heads overlap no more than the null; the same heads do."""
    generator = torch.Generator().manual_seed(0)
    by_layer = torch.zeros(6, 16, 5)
    by_layer[4:] = torch.rand(2, 16, 5, generator=generator)
    null = overlap_null(by_layer, k=8, n_draws=400)
    rows, columns = torch.triu_indices(5, 5, offset=1)
    random = float(overlap(by_layer, 8)[rows, columns].mean())
    assert float(null.quantile(0.01)) < random < float(null.quantile(0.99))
    everywhere = overlap_null(torch.rand(6, 16, 5, generator=generator), k=8, n_draws=400)
    assert float(null.mean()) > 2 * float(everywhere.mean())  # a null over all layers would be too easy
    same = by_layer[:, :, :1].expand(-1, -1, 5).clone()
    assert float(overlap(same, 8)[rows, columns].mean()) == 1 > float(overlap_null(same, 8, 400).max())


def test_concentration_is_the_share_of_the_positive_sum():
    contribution = torch.tensor([[4.0, 3.0], [-5.0, 1.0]])[..., None]
    table = concentration(contribution, (1, 3, 10))
    assert table[0].to_dict() == pytest.approx({1: 0.5, 3: 1.0})
    assert is_top(contribution, 2)[:, 0].tolist() == [True, True, False, False]


def test_per_category_sets_each_categorys_own_column_against_the_benign_prompts():
    labels = [name for name in (*CATEGORY_IDS, BENIGN) for _ in range(5)]
    values = np.random.default_rng(0).normal(size=(60, 2, 3, 11)).astype(np.float32)
    order = np.random.default_rng(1).permutation(60)  # rows in any order
    found = per_category(contributions, torch.from_numpy(values[order]), [labels[row] for row in order])
    for c in range(11):
        expected = values[5 * c : 5 * c + 5, ..., c].mean(0) - values[55:, ..., c].mean(0)
        assert found[..., c].numpy() == pytest.approx(expected, abs=1e-5)
    both = per_category(lambda *sides: torch.stack(sides[:1]).mean(1), torch.from_numpy(values), labels)
    assert both.shape == (1, 2, 3, 11)  # a statistic may give any shape
    with pytest.raises(ValueError, match=r"per_category: .*got \(60, 2, 3, 4\) for 11 categories and 60 labels"):
        per_category(contributions, torch.from_numpy(values[..., :4]), labels)
    with pytest.raises(ValueError, match="per_category: .* and 59 labels"):
        per_category(contributions, torch.from_numpy(values), labels[1:])


def test_top_heads_are_at_least_one_and_at_most_all():
    contribution = torch.arange(24.0).reshape(2, 3, 4)
    assert len(top_heads(contribution[..., 0], 7)) == 6
    assert is_top(contribution, 6).all()
    with pytest.raises(ValueError, match="top_heads: at least 1 head; got 0"):
        top_heads(contribution[..., 0], 0)
    for k in (0, 7):
        with pytest.raises(ValueError, match=f"1 to 6 of the heads; got {k}"):
            overlap(contribution, k)


def test_top_table_reads_every_number_of_the_top_heads():
    contribution = torch.from_numpy(np.random.default_rng(2).normal(size=(3, 4, 11)).astype(np.float32))
    table = top_table({"contribution": contribution, "twice": 2 * contribution}, 2)
    for c, name in enumerate(CATEGORY_IDS):
        ranked = sorted(((float(contribution[i, j, c]), i, j) for i in range(3) for j in range(4)), reverse=True)[:2]
        own = table.loc[name]
        assert list(zip(own["layer"], own["head"], strict=True)) == [each[1:] for each in ranked]
        assert own["contribution"].tolist() == pytest.approx([each[0] for each in ranked])
        assert own["twice"].tolist() == pytest.approx([2 * each[0] for each in ranked])
        assert top_by_category(contribution, 2)[name] == [each[1:] for each in ranked]
    assert len(top_table({"contribution": contribution}, 20)) == 11 * 12  # no more heads than there are


def test_mean_changes_are_paired_and_their_intervals_cover_at_their_rate():
    inside = []
    for seed in range(300):
        generator = np.random.default_rng(seed)
        before = pd.DataFrame({"a": 10 * generator.normal(size=80), "b": generator.normal(size=80)})
        after = before.assign(a=before["a"] + 0.5 + generator.normal(size=80), b=before["b"] - 1)
        found = mean_changes(before, {"moved": after})
        inside.append(found.loc[("moved", "a"), "low"] <= 0.5 <= found.loc[("moved", "a"), "high"])
    assert 0.91 <= np.mean(inside) <= 0.98
    differences = after["a"] - before["a"]
    test = ttest_rel(after["a"], before["a"]).confidence_interval(0.95)  # Student's t, so a little wider
    assert found.loc[("moved", "a"), "change"] == pytest.approx(differences.mean())
    assert found.loc[("moved", "a"), "low"] == pytest.approx(test.low, abs=0.01)
    assert found.loc[("moved", "b")].tolist() == pytest.approx([-1, -1, -1])
    with pytest.raises(ValueError, match=r"mean_changes: .*got \(79, 2\) in moved for \(80, 2\)"):
        mean_changes(before, {"moved": after[1:]})


def test_mean_changes_leave_out_what_is_not_measured():
    before = pd.DataFrame({"a": np.arange(10.0)})
    after = before + np.linspace(0, 2, 10)[:, None]
    some = after.where(np.arange(10)[:, None] >= 6)
    found = mean_changes(before, {"all": after, "some": some})
    alone = mean_changes(before[6:], {"alone": after[6:]})
    assert found.loc[("some", "a")].tolist() == pytest.approx(alone.loc[("alone", "a")].tolist())
    assert found.loc[("all", "a"), "change"] == pytest.approx(1)


def singles(seed, tie=0.0):
    """Shares and effects of 24 heads in 4 layers; layers differ as a whole, and a head's effects go together."""
    generator = np.random.default_rng(seed)
    rows = []
    for layer in range(4):
        for head in range(6):
            share, own = generator.normal(size=11) + generator.normal(), generator.normal()
            effect = 2 * layer + own + generator.normal(size=11) + tie * share
            heads = {"category": CATEGORY_IDS, "layer": layer, "head": head}
            rows.append(pd.DataFrame({**heads, "attribution": 2 * layer + share, "effect": effect}))
    return pd.concat(rows, ignore_index=True)


def test_rank_test_is_spearmans_and_takes_neither_layers_nor_categories_for_evidence():
    none = [rank_test(singles(seed), n_draws=100, seed=seed) for seed in range(60)]
    plain = [spearmanr(singles(seed)["attribution"], singles(seed)["effect"]) for seed in range(60)]
    assert [each["rho"] for each in none] == pytest.approx([each.statistic for each in plain])
    assert np.mean([each["p"] < 0.05 for each in none]) <= 0.12
    assert all(each.pvalue < 1e-6 for each in plain)  # before control: pairs counted as independent
    assert np.mean([each["null"] for each in none]) > 0.3  # the layers' part
    tied = rank_test(singles(0, tie=2.0), n_draws=200).to_dict()
    assert tied["p"] < 0.01
    assert tied["rho"] > tied["null high"] > tied["null"]
    shuffled = singles(0, tie=2.0).sample(frac=1, random_state=1)  # rows in any order
    assert rank_test(shuffled, n_draws=200).to_dict() == pytest.approx(tied)
    with pytest.raises(ValueError, match="rank_test: every head must .*; got 263 rows for 24 heads"):
        rank_test(singles(0)[1:])
