from dataclasses import replace

import numpy as np
import pytest
import torch

from refusal_utils.tradeoff.curves import GRID, curves, tradeoff_curves
from refusal_utils.tradeoff.outcomes import Outcomes

from .planted import STRENGTHS, planted


def true_curves(gains):
    return curves(planted(seed=99, n=20_000, gains=gains), torch.ones(1, 40_000, dtype=torch.float64))[0]


def stairs():
    """One direction: RR and ORR of 0 and 0, 0.6 and 0.2, 0.8 and 0.4."""
    refused = torch.zeros(1, 3, 20, dtype=torch.bool)
    refused[0, 1, :6] = refused[0, 1, 10:12] = True
    refused[0, 2, :8] = refused[0, 2, 10:14] = True
    harmful = torch.arange(20) < 10
    return Outcomes(refused, harmful, harmful.long(), ("only",), torch.ones(1, 3, dtype=torch.bool), (0.0, 1.0, 2.0))


def test_a_curve_passes_through_its_points_and_ends_where_the_direction_does():
    curve = curves(stairs(), torch.ones(1, 20, dtype=torch.float64))[0, 0]
    found = [float(curve[(GRID - at).abs().argmin()]) for at in (0.0, 0.2, 0.4, 0.5, 0.6, 0.625, 0.9)]
    assert found == pytest.approx([0.0, 0.3, 0.6, 0.7, 0.8, np.nan, np.nan], nan_ok=True)
    band = tradeoff_curves(stairs(), n_draws=20).bands
    assert band["overall"].max() == pytest.approx(0.6)  # no further than it reaches
    assert not band.isna().any().any()


def test_curves_are_those_of_numpy_interp_for_every_draw():
    outcomes = planted(n=15, strengths=torch.linspace(-3, 9, 9))
    weights = outcomes.weights(60)
    found = curves(outcomes, weights)
    refused, overall = outcomes.rates(weights)[0].numpy(), outcomes.overall(weights).numpy()
    for draw in range(len(weights)):
        for direction in range(2):
            points = sorted(zip(overall[draw, direction], refused[draw, direction], strict=True))
            x, y = zip((0.0, 0.0), *points, (1.0, 1.0), strict=True)
            inside = ~found[draw, direction].isnan()
            expected = np.interp(GRID[inside], x, y)
            assert found[draw, direction, inside].numpy() == pytest.approx(expected, abs=1e-12)


def test_every_draw_ends_where_the_data_end_and_is_continued_to_the_corner():
    outcomes, weights = stairs(), torch.ones(2, 20, dtype=torch.float64)
    weights[1, 8:10], weights[1, :2] = 2, 0  # a draw in which the last point is RR 0.6, ORR 0.4: overall 0.5
    drawn = curves(outcomes, weights)[:, 0]
    assert torch.equal(drawn[0].isnan(), drawn[1].isnan())
    assert float(drawn[1, (GRID - 0.6).abs().argmin()]) == pytest.approx(0.6 + (1 - 0.6) * (0.6 - 0.5) / (1 - 0.5))


def test_reach_is_the_lowest_and_the_highest_rate_with_the_strength_that_gives_it():
    gains = ((1.0, 1.0), (0.3, 0.3), (0.0, 0.0))
    outcomes = planted(n=100, gains=gains, jitter=0.0, names=("far", "near", "nowhere"))
    found = tradeoff_curves(outcomes, n_draws=300)
    table = found.table()
    overall = outcomes.refused.double().mean(-1)
    assert table["from"].to_numpy() == pytest.approx(overall.amin(1).numpy())
    assert table["to"].to_numpy() == pytest.approx(overall.amax(1).numpy())
    assert ((table["from low"] <= table["from"]) & (table["to"] <= table["to high"])).all()
    half = 1.96 * np.sqrt(table["to"]["near"] * (1 - table["to"]["near"]) / 200)
    assert 0.3 * half < table["to high"]["near"] - table["to"]["near"] < 1.3 * half
    assert (table["to"] - table["from"])[["far", "near", "nowhere"]].round(6).is_monotonic_decreasing
    span = found.span({"far": "one", "near": "one", "nowhere": "other"})
    assert span.loc["one", "max"] == pytest.approx(table["to"]["far"] - table["from"]["far"])
    assert span.loc["other"].tolist() == [0, 0, 0]
    assert table["to"]["nowhere"] == table["from"]["nowhere"]
    assert table.loc["near", ["from strength", "to strength"]].tolist() == [-3.0, 6.0]
    assert abs(table["to strength"]["nowhere"]) == float(STRENGTHS.abs().min())  # of equals the weakest


def test_a_direction_that_turns_back_reaches_as_far_as_its_turning_point():
    back = replace(stairs(), refused=stairs().refused[:, [0, 2, 1]])
    assert tradeoff_curves(back, 20).reach.loc["only", ["to", "to strength"]].tolist() == pytest.approx([0.6, 1.0])
    broken = replace(back, usable=torch.tensor([[True, False, True]]))
    assert tradeoff_curves(broken, 20).reach.loc["only", ["to", "to strength"]].tolist() == pytest.approx([0.4, 2.0])


def test_bands_cover_the_curve_of_many_prompts():
    truth = true_curves(((1.0, 1.0),))[0].numpy()
    inside = []
    for seed in range(40):
        band = tradeoff_curves(planted(seed, n=60), n_draws=200, seed=seed).bands
        band = band[band["direction"] == "direction 0"]
        true = np.interp(band["overall"], GRID, truth)
        inside.append(np.mean((band["low"] - 0.01 <= true) & (true <= band["high"] + 0.01)))
    assert np.mean(inside) > 0.9


def test_advantage_is_the_mean_difference_of_two_curves_and_sees_a_direction_that_refuses_benign_prompts_less():
    outcomes = planted(gains=((1.0, 0.3), (1.0, 1.0), (1.0, 1.0)))
    found = tradeoff_curves(outcomes, 100).advantage("direction 0")
    line = curves(outcomes, outcomes.weights(0))[0]
    expected = np.nanmean((line[0] - line[1]).numpy())
    assert found.loc["direction 1", "more"] == pytest.approx(expected)
    assert found.loc["direction 1", "low"] > 0
    same = tradeoff_curves(outcomes, 100).advantage("direction 1").loc["direction 2"]
    assert same["low"] < 0 < same["high"]
    assert list(found.index) == ["direction 1", "direction 2"]


def test_an_advantage_is_that_over_the_refusal_rates_that_both_reach():
    outcomes = planted(n=47, gains=((1.0, 0.3), (0.5, 0.5), (0.0, 0.0)), jitter=0.0)
    found = tradeoff_curves(outcomes, 20).advantage("direction 1")
    overall = outcomes.refused.double().mean(-1)[:2]  # both sides have the same number of prompts
    ends = [float(overall.amin(1).max()), float(overall.amax(1).min())]
    assert found.loc["direction 0", ["from", "to"]].tolist() == pytest.approx(ends)
    assert found.loc["direction 0", "more"] < 0
    assert found.loc["direction 2", ["more", "low", "high"]].isna().all()
