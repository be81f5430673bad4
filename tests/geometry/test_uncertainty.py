"""Corrections, intervals and subsets recover planted truth where plain cosines do not."""

import pytest
import torch

from refusal_utils.directions.comparison import cosine_matrix
from refusal_utils.directions.estimation import mean_difference
from refusal_utils.geometry import uncertainty
from refusal_utils.geometry.gram import contrasts
from refusal_utils.geometry.uncertainty import cosine_intervals, reliability, subset_cosines, subset_counts

from .planted import TRUE, planted


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_the_interval_covers_the_truth_where_the_raw_cosine_is_biased(shared):
    inside, raw_error, corrected_error = [], [], []
    rows, columns = torch.triu_indices(3, 3, offset=1)
    for seed in range(250):
        found = cosine_intervals(contrasts(*planted(seed, shared=shared)), n_draws=250, seed=seed)
        inside.append(((found.low <= TRUE) & (found.high >= TRUE))[rows, columns])
        raw_error.append((found.raw - TRUE)[rows, columns])
        corrected_error.append((found.corrected - TRUE)[rows, columns])
    coverage = torch.stack(inside).double().mean()
    raw_bias, bias = torch.stack(raw_error).mean(0), torch.stack(corrected_error).mean(0)
    assert 0.92 <= coverage <= 0.98
    assert bias.abs().max() < 0.015
    # Shared answered prompts push low cosines up; without them noise pulls high ones down.
    assert raw_bias[2] > 0.07 if shared else raw_bias[0] < -0.06


def test_reliability_is_the_squared_cosine_to_the_truth():
    seeds = range(60)
    estimates, actual = [], []
    for seed in seeds:
        refused, answered = planted(seed, n=16, gap=3.0)
        estimates.append(reliability(contrasts(refused, answered)))
        generator = torch.Generator().manual_seed(seed)
        axes = torch.linalg.qr(torch.randn(64, 3, generator=generator))[0].T
        true = torch.linalg.cholesky(TRUE) @ axes
        found = torch.stack([mean_difference(rows, answered) for rows in refused.values()])
        actual.append(torch.cosine_similarity(found, true, dim=1).square())
    assert torch.stack(estimates).mean().item() == pytest.approx(torch.stack(actual).mean().item(), abs=0.03)


def test_equal_directions_are_corrected_to_one():
    equal = torch.full((3, 3), 0.9999) + 1e-4 * torch.eye(3)
    found = cosine_intervals(contrasts(*planted(5, n=100, true=equal, shared=False)), n_draws=200)
    assert found.raw[0, 1] < 0.97
    assert found.corrected[0, 1] == pytest.approx(1.0, abs=0.03)


def test_subsets_of_one_seed_are_disjoint():
    sample = contrasts(*planted(0))
    parts = [subset_counts(sample, 10, 7, seed=3, part=part) for part in range(3)]
    assert torch.equal(sum(parts), sum(parts).clamp(max=1))
    assert all(float(part[0, side].sum()) == 10 for part in parts for side in sample.sides)
    with pytest.raises(ValueError, match=r"^subset_counts: 40 prompts are needed .*; got 32\. Draw fewer\.$"):
        subset_counts(sample, 10, 7, part=3)


def test_more_prompts_bring_a_direction_closer_to_the_one_of_all():
    sample = contrasts(*planted(0, n=64))
    means = [float(subset_cosines(sample, n, 50).diagonal(dim1=1, dim2=2).mean()) for n in (4, 8, 16, 32, 64)]
    assert means == sorted(means)
    assert means[-1] == pytest.approx(1.0)
    disjoint = subset_cosines(sample, 32, 50, against="disjoint").diagonal(dim1=1, dim2=2)
    assert disjoint.mean() < means[-2]
    # An independent route: the expected cosine of two halves follows from the noise, |r|^2 / (|r|^2 + noise).
    assert disjoint.mean().item() == pytest.approx(4.5**2 / (4.5**2 + 2 * 64 / 32), abs=0.03)


def test_a_subset_against_all_is_the_cosine_of_the_two_estimates():
    refused, answered = planted(3)
    sample = contrasts(refused, answered)
    taken = subset_counts(sample, 8, 2, seed=5)[1].bool()
    rows = torch.cat([*refused.values(), answered])
    few = [mean_difference(rows[side][taken[side]], answered[taken[sample.sides[-1]]]) for side in sample.refused]
    every = [mean_difference(side, answered) for side in refused.values()]
    plain = cosine_matrix(torch.stack(few + every))[:3, 3:]
    assert torch.allclose(subset_cosines(sample, 8, 2, seed=5)[1], plain, atol=1e-5)


def test_intervals_do_not_depend_on_how_many_draws_are_in_memory(monkeypatch):
    sample = contrasts(*planted(0))
    whole = cosine_intervals(sample, 100)
    monkeypatch.setattr(uncertainty, "DRAWS_AT_ONCE", 7)
    parts = cosine_intervals(sample, 100)
    torch.testing.assert_close(parts.low, whole.low, rtol=0, atol=1e-6)
    torch.testing.assert_close(parts.high, whole.high, rtol=0, atol=1e-6)
