"""The Gram matrix gives the numbers that plain means of rows give."""

import math

import pytest
import torch

from refusal_utils.directions.comparison import cosine_matrix
from refusal_utils.directions.estimation import mean_difference
from refusal_utils.geometry.gram import (
    behaviour_contrasts,
    contrasts,
    cosines,
    inner_products,
    noise_products,
)
from refusal_utils.stats import bootstrap_counts

from .planted import buckets, planted


@pytest.mark.parametrize("shared", [True, False])
def test_raw_cosines_are_those_of_the_mean_differences(shared):
    refused, answered = planted(0, shared=shared)
    sample = contrasts(refused, answered)
    plain = [mean_difference(refused[name], answered if shared else answered[name]) for name in refused]
    found = sample.cosines
    assert torch.allclose(found.float(), cosine_matrix(torch.stack(plain)), atol=1e-5)


def test_a_bootstrap_draw_equals_the_cosines_of_the_resampled_rows():
    refused, answered = planted(1)
    sample = contrasts(refused, answered)
    counts = bootstrap_counts(sample.strata, 3, seed=4)
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
    noise = noise_products(sample, sample.every_prompt)[0]
    of_mean = {name: float(rows.double().var(0, correction=1).sum()) / len(rows) for name, rows in refused.items()}
    shared = float(answered.double().var(0, correction=1).sum()) / len(answered)
    assert noise[0, 1].item() == pytest.approx(shared)
    assert noise[2, 2].item() == pytest.approx(of_mean["third"] + shared)
    own = contrasts(*planted(2, shared=False))
    assert noise_products(own, own.every_prompt)[0][0, 1] == 0


def test_behaviour_contrasts_are_the_six_mean_differences():
    drawn = buckets(0)
    sample = behaviour_contrasts(drawn)
    assert sample.categories == ("HR-HC", "HR-BR", "HR-BC", "HC-BR", "HC-BC", "BR-BC")
    plain = [mean_difference(*(drawn[side] for side in name.split("-"))) for name in sample.categories]
    found = sample.cosines
    assert torch.allclose(found.float(), cosine_matrix(torch.stack(plain)), atol=1e-5)
    assert len(sample.sides) == 4


def test_noise_of_shared_sides_is_taken_off_whichever_side_they_are_on():
    """HR-HC and HC-BC share HC with opposite signs: noise alone makes their inner product negative."""
    true = torch.tensor([[0.0, 2.0], [3.0, 2.0], [3.0, 0.0]])  # HR-HC, HR-BC, HC-BC on (harm, refusal)
    plain, corrected = [], []
    for seed in range(300):
        sample = behaviour_contrasts(buckets(seed))
        counts = sample.every_prompt
        chosen = [sample.categories.index(name) for name in ("HR-HC", "HR-BC", "HC-BC")]
        products = inner_products(sample, counts)[0][chosen][:, chosen]
        plain.append(products)
        corrected.append(products - noise_products(sample, counts)[0][chosen][:, chosen])
    expected = true.double() @ true.T.double()
    assert (torch.stack(plain).mean(0) - expected)[0, 2] < -1.5
    assert (torch.stack(corrected).mean(0) - expected).abs().max() < 0.25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda refused, answered: ({"first": refused["first"][:3]}, answered),
            "there must be at least 4 prompts on a side; got 3 in refused first",
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
