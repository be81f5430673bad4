"""Planted truth: activations with a known cosine matrix and known noise, and what the estimators make of them."""

import math
from itertools import combinations, permutations

import numpy as np
import pytest
import torch

from refusal_utils.directions.comparison import cosine_matrix
from refusal_utils.directions.estimation import mean_difference
from refusal_utils.geometry.contrasts import (
    behaviour_contrasts,
    bootstrap_counts,
    contrasts,
    cosine_intervals,
    cosines,
    full_counts,
    inner_products,
    noise_products,
    reliability,
    subset_cosines,
    subset_counts,
)
from refusal_utils.geometry.nulls import adjust_p, distinctness_p, mantel_p, pair_contrasts, relatedness_p

TRUE = torch.tensor([[1.0, 0.5, 0.2], [0.5, 1.0, -0.1], [0.2, -0.1, 1.0]])
NAMES = ("first", "second", "third")


def planted(seed, n=32, d_model=64, gap=4.5, true=TRUE, shared=True):
    """Activations of three categories whose true differences have length `gap` and cosines `true`; unit noise."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(d_model, len(true), generator=generator))[0].T
    means = gap * torch.linalg.cholesky(true) @ axes
    refused = {
        name: torch.randn(n, d_model, generator=generator) + mean for name, mean in zip(NAMES, means, strict=False)
    }
    if shared:
        return refused, torch.randn(n, d_model, generator=generator)
    return refused, {name: torch.randn(n, d_model, generator=generator) for name in refused}


@pytest.mark.parametrize("shared", [True, False])
def test_raw_cosines_are_those_of_the_mean_differences(shared):
    refused, answered = planted(0, shared=shared)
    sample = contrasts(refused, answered)
    plain = [mean_difference(refused[name], answered if shared else answered[name]) for name in refused]
    found = cosines(inner_products(sample, full_counts(sample)))[0]
    assert torch.allclose(found.float(), cosine_matrix(torch.stack(plain)), atol=1e-5)


def test_a_bootstrap_draw_equals_the_cosines_of_the_resampled_rows():
    refused, answered = planted(1)
    sample = contrasts(refused, answered)
    counts = bootstrap_counts(sample, 3, seed=4)
    rows = torch.cat([*refused.values(), answered])
    for draw in range(3):
        repeated = [rows[side].repeat_interleave(counts[draw, side].long(), dim=0) for side in sample.sides]
        plain = cosine_matrix(torch.stack([mean_difference(side, repeated[-1]) for side in repeated[:-1]]))
        found = cosines(inner_products(sample, counts[draw : draw + 1]))[0]
        assert torch.allclose(found.float(), plain, atol=1e-5)
    assert all(float(counts[0, side].sum()) == 32 for side in sample.sides)


def test_noise_is_the_variance_of_the_means_and_shared_where_the_answered_prompts_are():
    refused, answered = planted(2)
    sample = contrasts(refused, answered)
    noise = noise_products(sample, full_counts(sample))[0]
    of_mean = {name: float(rows.double().var(0, correction=1).sum()) / len(rows) for name, rows in refused.items()}
    shared = float(answered.double().var(0, correction=1).sum()) / len(answered)
    assert noise[0, 1].item() == pytest.approx(shared)
    assert noise[2, 2].item() == pytest.approx(of_mean["third"] + shared)
    own = contrasts(*planted(2, shared=False))
    assert noise_products(own, full_counts(own))[0][0, 1] == 0


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_the_interval_covers_the_truth_where_the_raw_cosine_is_biased(shared):
    inside, raw_error, corrected_error = [], [], []
    rows, columns = torch.triu_indices(3, 3, offset=1)
    for seed in range(400):
        found = cosine_intervals(contrasts(*planted(seed, shared=shared)), n_draws=500, seed=seed)
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


def buckets(seed, n=24, d_model=48, harm=3.0, refusal=2.0):
    """HR, HC, BR, BC with one axis for harmful and another for refused, unit noise."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.eye(d_model)
    centres = {
        "HR": harm * axes[0] + refusal * axes[1],
        "HC": harm * axes[0],
        "BR": refusal * axes[1],
        "BC": 0 * axes[0],
    }
    return {name: torch.randn(n, d_model, generator=generator) + centre for name, centre in centres.items()}


def test_behaviour_contrasts_are_the_six_mean_differences():
    drawn = buckets(0)
    sample = behaviour_contrasts(drawn)
    assert sample.categories == ("HR-HC", "HR-BR", "HR-BC", "HC-BR", "HC-BC", "BR-BC")
    plain = [mean_difference(*(drawn[side] for side in name.split("-"))) for name in sample.categories]
    found = cosines(inner_products(sample, full_counts(sample)))[0]
    assert torch.allclose(found.float(), cosine_matrix(torch.stack(plain)), atol=1e-5)
    assert len(sample.sides) == 4


def test_noise_of_shared_sides_is_taken_off_whichever_side_they_are_on():
    """HR-HC and HC-BC share HC with opposite signs: noise alone makes their inner product negative."""
    true = torch.tensor([[0.0, 2.0], [3.0, 2.0], [3.0, 0.0]])  # HR-HC, HR-BC, HC-BC on (harm, refusal)
    plain, corrected = [], []
    for seed in range(300):
        sample = behaviour_contrasts(buckets(seed))
        counts = full_counts(sample)
        chosen = [sample.categories.index(name) for name in ("HR-HC", "HR-BC", "HC-BC")]
        products = inner_products(sample, counts)[0][chosen][:, chosen]
        plain.append(products)
        corrected.append(products - noise_products(sample, counts)[0][chosen][:, chosen])
    expected = true.double() @ true.T.double()
    assert (torch.stack(plain).mean(0) - expected)[0, 2] < -1.5
    assert (torch.stack(corrected).mean(0) - expected).abs().max() < 0.25


def test_distinct_directions_are_told_from_equal_ones():
    equal = torch.tensor([[1.0, 0.999, 0.2], [0.999, 1.0, 0.2], [0.2, 0.2, 1.0]])
    p_values = distinctness_p(contrasts(*planted(0, true=equal)), 500)
    assert p_values[0, 1] > 0.01
    assert p_values[0, 2] == pytest.approx(1 / 501)
    assert torch.equal(p_values, p_values.T)


def test_distinctness_is_uniform_where_the_directions_are_equal():
    equal = torch.full((2, 2), 0.999999) + 1e-6 * torch.eye(2)
    p_values = [
        float(distinctness_p(contrasts(*planted(seed, n=12, true=equal)), 200, seed)[0, 1]) for seed in range(200)
    ]
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
    found = float(distinctness_p(contrasts(refused, answered), 20_000)[0, 1])
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
    for i, j in combinations(range(3), 2):
        cosine = r[i] @ r[j] / np.linalg.norm(r[i]) / np.linalg.norm(r[j])
        assert float(found[i, j]) == pytest.approx(np.mean(random >= cosine), abs=0.015)
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
    sample = pair_contrasts(twins)
    plain = cosine_matrix(torch.stack([mean_difference(*pair) for pair in twins.values()]))
    assert torch.allclose(cosines(inner_products(sample, full_counts(sample)))[0].float(), plain, atol=1e-5)
    found = distinctness_p(sample, 500)
    assert found[0, 1] > 0.05 > found[0, 2]
    before = distinctness_p(contrasts({name: own for name, (own, _) in twins.items()}, ordinary), 500)
    assert before[0, 1] < 0.05  # their topics alone


def test_related_directions_are_told_from_random_ones():
    orthogonal = torch.tensor([[1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 1.0]])
    p_values = relatedness_p(contrasts(*planted(0, n=64, true=orthogonal, shared=False)), 2000)
    assert p_values[0, 1] < 0.01
    assert p_values[0, 2] > 0.05


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


def test_adjusted_p_values_are_those_of_benjamini_and_hochberg():
    p_values = torch.ones(4, 4)
    rows, columns = torch.triu_indices(4, 4, offset=1)
    given = torch.tensor([0.001, 0.01, 0.03, 0.2, 0.5, 0.9])
    p_values[rows, columns] = p_values[columns, rows] = given
    by_hand = [0.006, 0.03, 0.06, 0.3, 0.6, 0.9]
    assert adjust_p(p_values)[rows, columns].tolist() == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda refused, answered: ({"first": refused["first"][:3]}, answered),
            "at least 4 prompts on a side; got 3 in refused first",
        ),
        (
            lambda refused, answered: (refused, refused["second"]),
            "the two sides must differ; got identical ones for second",
        ),
        (
            lambda refused, answered: (refused, {"first": answered}),
            "every category must have answered prompts; got none for second, third",
        ),
        (lambda refused, answered: ({}, answered), "there must be at least one category"),
    ],
)
def test_contrasts_says_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=f"^contrasts: {message}"):
        contrasts(*change(*planted(0)))


@pytest.mark.parametrize(
    ("value", "dtype", "word"),
    [(math.nan, torch.float32, "NaN or inf"), (math.inf, torch.float16, "float16 overflows")],
)
def test_contrasts_names_the_prompt_that_is_not_finite(value, dtype, word):
    refused, answered = planted(0)
    refused["third"] = refused["third"].to(dtype)
    refused["third"][7, 3] = value
    with pytest.raises(ValueError, match=f"got {word} in refused third, prompt 7"):
        contrasts(refused, answered)
