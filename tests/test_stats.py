"""The shared statistics against textbook formulas, scipy's bootstrap and a hand-written correction."""

import numpy as np
import pytest
import torch

from refusal_utils.stats import adjust_p, bootstrap_counts, percentile_interval, wilson


def test_wilson_is_the_textbook_interval():
    k, n, z = 17, 60, 1.959963984540054
    centre = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * np.sqrt(k * (n - k) / n + z * z / 4)
    assert wilson(k, n) == pytest.approx((centre - half, centre + half))


def test_bootstrap_counts_resample_every_stratum_to_its_own_size():
    strata = torch.tensor([0, 1, 0, 1, 1, 0, 0])
    counts = bootstrap_counts(strata, 500, seed=1)
    for stratum, size in ((0, 4), (1, 3)):
        assert (counts[:, strata == stratum].sum(1) == size).all()
    assert counts.equal(bootstrap_counts(strata, 500, seed=1))
    assert not counts.equal(bootstrap_counts(strata, 500, seed=2))
    assert counts.mean(0).sub(1).abs().max() < 0.15


def test_bootstrap_means_have_the_standard_error_of_the_mean():
    values = torch.randn(60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    means = bootstrap_counts(torch.zeros(60, dtype=torch.long), 20_000) @ values / 60
    assert float(means.std()) == pytest.approx(float(values.std(correction=0)) / 60**0.5, rel=0.03)


def test_percentile_interval_holds_the_asked_share_and_skips_nan():
    draws = torch.arange(1001.0)[:, None].repeat(1, 2)
    draws[:500, 1] = torch.nan
    low, high = percentile_interval(draws, 0.9)
    assert low.tolist() == pytest.approx([50, 525])
    assert high.tolist() == pytest.approx([950, 975])


def test_adjust_p_is_benjamini_and_hochbergs_step_up_and_leaves_out_nan():
    p = torch.tensor([0.01, torch.nan, 0.04, 0.03])
    adjusted = adjust_p(p)
    assert adjusted[[0, 2, 3]].tolist() == pytest.approx([0.03, 0.04, 0.04])
    assert adjusted[1].isnan()
