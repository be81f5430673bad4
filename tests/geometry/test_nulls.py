"""p-values against exhaustive enumeration, numpy and planted truth."""

from itertools import combinations, permutations

import numpy as np
import pandas as pd
import pytest
import torch

from refusal_utils.directions.comparison import cosine_matrix
from refusal_utils.directions.estimation import mean_difference
from refusal_utils.geometry.confounds import measure_confounds
from refusal_utils.geometry.gram import contrasts, twin_contrasts
from refusal_utils.geometry.nulls import distinctness_p, mantel_p, relatedness_p

from .planted import NAMES, planted


def test_distinct_directions_are_told_from_equal_ones():
    equal = torch.tensor([[1.0, 0.999, 0.2], [0.999, 1.0, 0.2], [0.2, 0.2, 1.0]])
    p_values = distinctness_p(contrasts(*planted(0, true=equal)), 500)
    assert p_values[0] > 0.01
    assert p_values[1] == pytest.approx(1 / 501)
    assert p_values[2] == p_values[1]


def test_distinctness_is_uniform_where_the_directions_are_equal():
    equal = torch.full((2, 2), 0.999999) + 1e-6 * torch.eye(2)
    p_values = [float(distinctness_p(contrasts(*planted(seed, n=12, true=equal)), 200, seed)[0]) for seed in range(200)]
    assert 0.01 <= np.mean(np.array(p_values) <= 0.05) <= 0.1


@pytest.mark.parametrize("shared", [True, False])
def test_distinctness_is_the_share_of_all_deals_whose_cosine_is_as_low(shared):
    """Against every one of the 11 over 5 deals, with numpy's means and cosines, and sides of different sizes."""
    refused, answered = planted(1, n=6, d_model=12, gap=2.0, shared=shared)
    refused["second"] = refused["second"][:5]
    sides = [(answered if shared else answered[name]).double().numpy().mean(0) for name in NAMES[:2]]
    both = torch.cat([refused["first"], refused["second"]]).double().numpy()

    def cosine(rows):
        others = [row for row in range(11) if row not in rows]
        r, q = both[list(rows)].mean(0) - sides[0], both[others].mean(0) - sides[1]
        return r @ q / np.linalg.norm(r) / np.linalg.norm(q)

    exact = np.mean([cosine(rows) <= cosine(range(6)) + 1e-9 for rows in combinations(range(11), 6)])
    found = float(distinctness_p(contrasts(refused, answered), 20_000)[0])
    assert 0.02 < exact < 0.98
    assert found == pytest.approx(exact, abs=0.015)


def test_relatedness_is_the_share_of_random_directions_of_the_prompts_covariance():
    refused, answered = planted(3, n=10, d_model=40, true=0.9 * torch.eye(3) + 0.1)
    found = relatedness_p(contrasts(refused, answered), 20_000)
    rows = torch.cat([*refused.values(), answered]).double().numpy()
    rng = np.random.default_rng(0)
    first, second = rng.multivariate_normal(np.zeros(40), np.cov(rows.T), (2, 20_000))
    random = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    r = [own.double().numpy().mean(0) - answered.double().numpy().mean(0) for own in refused.values()]
    for number, (i, j) in enumerate(combinations(range(3), 2)):
        cosine = r[i] @ r[j] / np.linalg.norm(r[i]) / np.linalg.norm(r[j])
        assert float(found[number]) == pytest.approx(np.mean(random >= cosine), abs=0.015)
    assert (found < 0.9).any()


def test_pairs_of_twins_are_distinct_where_what_changes_differs_and_not_where_the_topic_does():
    generator = torch.Generator().manual_seed(0)
    axes = 4 * torch.eye(30)
    topics, changes = dict(zip(NAMES, axes[:3], strict=True)), dict(zip(NAMES, axes[[5, 5, 6]], strict=True))
    benign = {name: torch.randn(20, 30, generator=generator) + topics[name] for name in NAMES}
    twins = {
        name: (own + changes[name] + torch.randn(20, 30, generator=generator), own) for name, own in benign.items()
    }
    ordinary = torch.randn(20, 30, generator=generator)
    sample = twin_contrasts(twins)
    plain = cosine_matrix(torch.stack([mean_difference(*pair) for pair in twins.values()]))
    assert torch.allclose(sample.cosines.float(), plain, atol=1e-5)
    found = distinctness_p(sample, 500)
    assert found[0] > 0.05 > found[1]
    before = distinctness_p(contrasts({name: own for name, (own, _) in twins.items()}, ordinary), 500)
    assert before[0] < 0.05  # their topics alone
    features = pd.DataFrame({"length": torch.randn(20, generator=generator).numpy()})
    confounds = measure_confounds({name: own for name, (own, _) in twins.items()}, ordinary, features, twins)
    assert confounds.n_distinct_twins() == 2


def test_related_directions_are_told_from_random_ones():
    orthogonal = torch.tensor([[1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 1.0]])
    p_values = relatedness_p(contrasts(*planted(0, n=64, true=orthogonal, shared=False)), 2000)
    assert p_values[0] < 0.01
    assert p_values[1] > 0.05


def test_mantels_p_is_the_share_of_all_orders_of_the_labels_that_correlate_as_highly():
    rng = np.random.default_rng(3)
    first, second = (each + each.T for each in rng.normal(size=(2, 4, 4)))
    above = np.triu_indices(4, 1)

    def correlation(order):
        return np.corrcoef(first[np.ix_(order, order)][above], second[above])[0, 1]

    exact = np.mean([correlation(order) >= correlation(range(4)) - 1e-9 for order in permutations(range(4))])
    assert 0.1 < exact < 0.9
    assert mantel_p(torch.tensor(first), torch.tensor(second), 20_000) == pytest.approx(exact, abs=0.015)


def test_mantels_p_tells_a_noisy_copy_from_an_unrelated_map():
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(9, 9, generator=generator, dtype=torch.float64) for _ in range(3)]
    first, other, noise = (each + each.T for each in maps)
    assert mantel_p(first, first, 500) == pytest.approx(1 / 501)
    assert mantel_p(first, first + 0.5 * noise, 500) < 0.02
    assert mantel_p(first, other, 500) > 0.05
