"""Planted knobs: prompts with thresholds, directions that push along one scale or along two, and what the tests say."""

import numpy as np
import pandas as pd
import pytest
import torch

from refusal_utils.tradeoff.curves import (
    GRID,
    NO_RANGE,
    VERDICTS,
    Sweep,
    as_sweep,
    curve_bands,
    curves,
    knob_test,
    prompt_weights,
    rates,
    reach,
    variance_shares,
)

STRENGTHS = torch.linspace(-3, 6, 8)


def planted(seed=0, n=100, gains=((1.0, 1.0), (1.0, 1.0)), jitter=0.3, names=None, strengths=STRENGTHS):
    """`gains` of each direction: how strongly it pushes harmful and benign prompts. Benign thresholds lie higher."""
    generator = torch.Generator().manual_seed(seed)
    harmful = torch.arange(2 * n) < n
    threshold = torch.randn(2 * n, generator=generator) + torch.where(harmful, 0.0, 2.0)
    push = torch.stack([torch.where(harmful, *(torch.tensor(gain) for gain in pair)) for pair in gains])
    noise = jitter * torch.randn(len(gains), len(strengths), 2 * n, generator=generator)
    refused = push[:, None] * strengths[None, :, None] + noise > threshold
    names = names or tuple(f"direction {index}" for index in range(len(gains)))
    usable = torch.ones(len(gains), len(strengths), dtype=torch.bool)
    return Sweep(refused, harmful, harmful.long(), names, usable, tuple(strengths.tolist()))


def true_curves(gains):
    return curves(planted(seed=99, n=20_000, gains=gains), torch.ones(1, 40_000, dtype=torch.float64))[0]


def largest(difference):
    return float(difference[~difference.isnan()].abs().max())


def test_rates_of_the_data_are_plain_shares_and_draws_keep_the_sizes():
    sweep = planted()
    weights = prompt_weights(sweep, 5)
    refused, over_refused = rates(sweep, weights)
    assert torch.equal(weights[:, sweep.harmful].sum(1), torch.full((6,), 100.0, dtype=torch.float64))
    assert refused[0].numpy() == pytest.approx(sweep.refused[:, :, sweep.harmful].double().mean(-1).numpy())
    assert over_refused[0].numpy() == pytest.approx(sweep.refused[:, :, ~sweep.harmful].double().mean(-1).numpy())
    repeated = sweep.refused[:, :, sweep.harmful].repeat_interleave(weights[3, sweep.harmful].long(), dim=-1)
    assert refused[3].numpy() == pytest.approx(repeated.double().mean(-1).numpy())


def test_prompts_are_resampled_within_their_buckets_so_that_the_start_is_fixed():
    """A controlled set holds as many refused as answered prompts by construction: strength 0 is 0.5 in every draw."""
    sweep = planted(n=40)
    start = torch.arange(80) % 2 == 0
    refused = torch.cat([start.expand(2, 1, 80), sweep.refused], dim=1)
    strata = 2 * sweep.harmful.long() + start.long()
    usable = torch.ones(2, 1 + len(STRENGTHS), dtype=torch.bool)
    drawn = rates(
        Sweep(refused, sweep.harmful, strata, sweep.directions, usable),
        prompt_weights(Sweep(refused, sweep.harmful, strata, sweep.directions, usable), 50),
    )
    assert all(torch.equal(rate[:, :, 0], torch.full((51, 2), 0.5, dtype=torch.float64)) for rate in drawn)
    assert all(float(rate[:, :, 4].std()) > 0.01 for rate in drawn)


def stairs():
    """One direction: RR and ORR of 0 and 0, 0.6 and 0.2, 0.8 and 0.4."""
    refused = torch.zeros(1, 3, 20, dtype=torch.bool)
    refused[0, 1, :6] = refused[0, 1, 10:12] = True
    refused[0, 2, :8] = refused[0, 2, 10:14] = True
    harmful = torch.arange(20) < 10
    return Sweep(refused, harmful, harmful.long(), ("only",), torch.ones(1, 3, dtype=torch.bool), (0.0, 1.0, 2.0))


def test_a_curve_passes_through_its_points_and_ends_where_the_direction_does():
    curve = curves(stairs(), torch.ones(1, 20, dtype=torch.float64))[0, 0]
    found = [float(curve[(GRID - at).abs().argmin()]) for at in (0.0, 0.2, 0.4, 0.5, 0.6, 0.625, 0.9)]
    assert found == pytest.approx([0.0, 0.3, 0.6, 0.7, 0.8, np.nan, np.nan], nan_ok=True)
    band = curve_bands(stairs(), n_draws=20)
    assert band["overall"].max() == pytest.approx(0.6)  # no further than it reaches
    assert not band.isna().any().any()


def test_every_draw_ends_where_the_data_end_and_is_led_on_to_the_corner():
    sweep, weights = stairs(), torch.ones(2, 20, dtype=torch.float64)
    weights[1, 8:10], weights[1, :2] = 2, 0  # a draw in which the last point is RR 0.6, ORR 0.4: overall 0.5
    drawn = curves(sweep, weights)[:, 0]
    assert torch.equal(drawn[0].isnan(), drawn[1].isnan())
    assert float(drawn[1, (GRID - 0.6).abs().argmin()]) == pytest.approx(0.6 + (1 - 0.6) * (0.6 - 0.5) / (1 - 0.5))


def test_reach_is_the_lowest_and_the_highest_rate_with_the_strength_that_gives_it():
    gains = ((1.0, 1.0), (0.3, 0.3), (0.0, 0.0))
    sweep = planted(n=100, gains=gains, jitter=0.0, names=("far", "near", "nowhere"))
    table = reach(sweep, n_draws=300)
    overall = sweep.refused.double().mean(-1)
    assert table["from"].to_numpy() == pytest.approx(overall.amin(1).numpy())
    assert table["to"].to_numpy() == pytest.approx(overall.amax(1).numpy())
    assert ((table["from low"] <= table["from"]) & (table["to"] <= table["to high"])).all()
    half = 1.96 * np.sqrt(table["to"]["near"] * (1 - table["to"]["near"]) / 200)
    assert 0.3 * half < table["to high"]["near"] - table["to"]["near"] < 1.3 * half
    assert (table["to"] - table["from"])[["far", "near", "nowhere"]].round(6).is_monotonic_decreasing
    assert table["to"]["nowhere"] == table["from"]["nowhere"]
    assert table.loc["near", ["from strength", "to strength"]].tolist() == [-3.0, 6.0]
    assert abs(table["to strength"]["nowhere"]) == float(STRENGTHS.abs().min())  # of equals the weakest


def test_a_direction_that_turns_back_reaches_as_far_as_its_turning_point():
    sweep = stairs()
    back = Sweep(
        sweep.refused[:, [0, 2, 1]],
        sweep.harmful,
        sweep.stratum,
        sweep.directions,
        sweep.usable,
        sweep.coefficients,
    )
    assert reach(back, 20).loc["only", ["to", "to strength"]].tolist() == pytest.approx([0.6, 1.0])
    unusable = Sweep(
        back.refused, back.harmful, back.stratum, back.directions, torch.tensor([[True, False, True]]), (0.0, 1.0, 2.0)
    )
    assert reach(unusable, 20).loc["only", ["to", "to strength"]].tolist() == pytest.approx([0.4, 2.0])


def test_bands_cover_the_curve_of_many_prompts():
    truth = true_curves(((1.0, 1.0),))[0].numpy()
    inside = []
    for seed in range(40):
        band = curve_bands(planted(seed, n=60), n_draws=200, seed=seed)
        band = band[band["direction"] == "direction 0"]
        true = np.interp(band["overall"], GRID, truth)
        inside.append(np.mean((band["low"] - 0.01 <= true) & (true <= band["high"] + 0.01)))
    assert np.mean(inside) > 0.9


def test_one_knob_is_found_equivalent_whatever_its_scale():
    table = knob_test(planted(n=400, gains=((1, 1), (1.5, 1.5), (0.8, 0.8)), jitter=0.1), n_draws=300)
    assert (table["verdict"] == "equivalent").all()
    assert (table["gap"] < 0.1).all()


def test_two_knobs_on_the_same_reach_are_found_different():
    gains = ((1.0, 1.0), (0.2, 1.0), (0.6, 0.6))
    table = knob_test(planted(n=150, gains=gains, names=("whole", "benign only", "half")), n_draws=300)
    table = table.set_index(["first", "second"])
    assert table["verdict"].tolist() == ["different", "equivalent", "different"]
    assert (table["gap_low"] > 0).tolist()[::2] == [True, True]
    assert (
        (table["area"] <= table["gap"]) & (table["gap_low"] <= table["gap"]) & (table["gap"] <= table["gap_high"])
    ).all()


def test_directions_on_one_curve_are_not_different_because_one_reaches_less_far():
    """The weaker of the two never leaves the middle of the stronger one's curve."""
    sweep = planted(n=150, gains=((1.0, 1.0), (0.4, 0.4)))
    row = knob_test(sweep, n_draws=300).iloc[0]
    ends = reach(sweep, 20)
    assert ends["to"].iloc[0] - ends["to"].iloc[1] > 0.1  # what the comparison must not see
    assert row[["from", "to"]].tolist() == pytest.approx([ends["from"].max(), ends["to"].min()])
    assert row["verdict"] == "equivalent"
    assert row["gap"] < 0.1


def test_a_direction_without_reach_has_no_common_range_with_any():
    sweep = planted(n=100, gains=((1.0, 1.0), (0.0, 0.0), (0.6, 0.6)), names=("one", "none", "other"))
    table = knob_test(sweep, n_draws=300).set_index(["first", "second"])
    assert table["verdict"].to_dict() == {
        ("one", "none"): NO_RANGE,
        ("one", "other"): "equivalent",
        ("none", "other"): NO_RANGE,
    }
    numbers = ["gap", "gap_low", "gap_high", "area", "area_low", "area_high", "p_equivalent", "p_different"]
    assert table.loc[table["verdict"] == NO_RANGE, numbers].isna().all().all()
    assert table.loc[("one", "other"), numbers].notna().all()
    two = Sweep(sweep.refused[::2], sweep.harmful, sweep.stratum, ("one", "other"), sweep.usable[::2])
    alone = knob_test(two, n_draws=300).iloc[0]  # pairs that were not compared do not count in the adjustment
    assert table.loc[("one", "other"), numbers].tolist() == alone[numbers].tolist()
    wide = knob_test(sweep, min_range=0.99, n_draws=50)
    assert (wide["verdict"] == NO_RANGE).all()
    assert set(wide["verdict"]) | set(table["verdict"]) <= set(VERDICTS)


def test_a_direction_with_a_single_point_has_no_curve_and_breaks_nothing():
    sweep = planted(n=47)
    sweep.usable[1] = torch.arange(len(STRENGTHS)) == 3
    at = float(sweep.refused[1, 3].double().mean())
    assert float((GRID - at).abs().min()) > 0.001  # between two points of the grid
    assert set(curve_bands(sweep, 20)["direction"]) == {"direction 0"}
    row = knob_test(sweep, min_range=0.0, n_draws=50).iloc[0]
    assert (row["verdict"], row["from"], row["to"]) == (NO_RANGE, pytest.approx(at), pytest.approx(at))


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_identical_curves_are_called_different_no_more_often_than_one_in_twenty(scale):
    """Over 200 planted experiments of the controlled set's size, whether or not both directions reach equally far."""
    gains = ((1.0, 1.0), (scale, scale))
    verdicts = [knob_test(planted(seed, gains=gains), n_draws=200, seed=seed)["verdict"][0] for seed in range(200)]
    assert np.mean([verdict == "different" for verdict in verdicts]) <= 0.05
    assert NO_RANGE not in verdicts


def test_a_gap_of_three_tenths_is_found_in_most_experiments():
    gains = ((1.0, 1.0), (0.1, 1.0))
    truth = true_curves(gains)
    assert 0.25 < largest(truth[0] - truth[1]) < 0.35
    verdicts = [knob_test(planted(seed, gains=gains), n_draws=200, seed=seed)["verdict"][0] for seed in range(50)]
    assert np.mean([verdict == "different" for verdict in verdicts]) > 0.8


def test_few_prompts_leave_the_question_undecided():
    assert knob_test(planted(seed=3, n=12, jitter=1.0), n_draws=300)["verdict"].tolist() == ["undecided"]


@pytest.mark.slow
def test_error_rates_of_the_knob_test_are_kept():
    """Equal curves are called different, and curves a margin apart equivalent, no more often than 1 in 20 says."""
    wrong_different = [
        knob_test(planted(seed, n=80), n_draws=200, seed=seed)["p_different"][0] < 0.05 for seed in range(150)
    ]
    assert np.mean(wrong_different) <= 0.08
    gains = ((1.0, 1.0), (0.85, 1.0))
    truth = true_curves(gains)
    margin = largest(truth[0] - truth[1])
    wrong_equivalent = [
        knob_test(planted(seed, n=80, gains=gains), margin=margin, n_draws=200, seed=seed)["p_equivalent"][0] < 0.05
        for seed in range(150)
    ]
    assert np.mean(wrong_equivalent) <= 0.08


def test_variance_shares_find_strength_and_no_direction_where_there_is_none():
    shares = pd.concat([variance_shares(planted(seed, n=60), n_draws=2)["share"] for seed in range(20)], axis=1).mean(
        axis=1
    )
    assert shares["strength"] > 0.3
    assert shares["direction given strength"] < 0.003
    strong = variance_shares(planted(n=300, gains=((1, 1), (0.2, 0.2))), n_draws=50)
    row = strong.loc["direction given strength"]
    cells = planted(n=300, gains=((1, 1), (0.2, 0.2))).refused.double().mean(-1)
    plain = cells.var(0, correction=1).mean() / (cells.mean() * (1 - cells.mean()))
    assert row["share"] == pytest.approx(float(plain), abs=0.01)
    assert row["low"] <= row["share"] <= row["high"]
    assert row["low"] > 0.02


def rows_of(sweep, strengths=STRENGTHS.tolist()):  # noqa: B008 - a constant
    grid = [
        (
            f"p{prompt:04}",
            bool(sweep.harmful[prompt]),
            name,
            coefficient,
            "refused" if sweep.refused[d, c, prompt] else "answered",
        )
        for d, name in enumerate(sweep.directions)
        for c, coefficient in enumerate(strengths)
        for prompt in range(len(sweep.harmful))
    ]
    return pd.DataFrame(grid, columns=["id", "harmful", "direction", "coefficient", "outcome"])


def test_as_sweep_reads_rows_in_any_order_and_drops_degenerate_points():
    sweep = planted(n=10)
    rows = rows_of(sweep).sample(frac=1, random_state=0)
    at = (rows["direction"] == "direction 1") & (rows["coefficient"] == STRENGTHS.tolist()[-1])
    rows.loc[rows[at].index[:4], "outcome"] = "broken"
    read = as_sweep(rows, sweep.directions, STRENGTHS.tolist())
    weights = torch.ones(1, 20, dtype=torch.float64)
    expected, found = rates(sweep, weights), rates(read, weights)
    assert torch.equal(found[0][0, 0], expected[0][0, 0])
    assert torch.equal(found[1][0, 0], expected[1][0, 0])
    assert read.usable.tolist() == [[True] * 8, [True] * 7 + [False]]
    assert read.coefficients == tuple(STRENGTHS.tolist())


def test_unsteered_responses_belong_to_every_direction():
    rows = rows_of(planted(n=10, strengths=torch.tensor([0.0, 1.0, 2.0])), [0.0, 1.0, 2.0])
    whole = as_sweep(rows, ["direction 0", "direction 1"], [0.0, 1.0, 2.0])
    once = rows[(rows["coefficient"] > 0) | (rows["direction"] == "direction 0")]
    read = as_sweep(once, ["direction 0", "direction 1"], [1.0, 2.0])
    assert read.coefficients == (0.0, 1.0, 2.0)
    assert torch.equal(read.refused[1, 0], whole.refused[0, 0])
    assert torch.equal(read.refused[:, 1:], whole.refused[:, 1:])


def test_strengths_may_be_given_per_direction_and_shares_use_the_common_ones():
    sweep = planted(n=40, jitter=0.0, gains=((1, 1), (0.8, 0.8)), strengths=torch.tensor([0.0, 1.0, 2.0, 3.0]))
    rows = rows_of(sweep, [0.0, 1.0, 2.0, 3.0])
    rows = rows[(rows["direction"] == "direction 0") | rows["coefficient"].isin([0.0, 2.0])]
    read = as_sweep(rows, sweep.directions, {"direction 0": [1.0, 2.0, 3.0], "direction 1": [2.0]})
    assert read.usable.tolist() == [[True] * 4, [True, False, True, False]]
    assert torch.equal(read.refused[read.usable], sweep.refused[read.usable])
    common = as_sweep(rows, sweep.directions, [2.0])
    pd.testing.assert_frame_equal(variance_shares(read, 20), variance_shares(common, 20))
    with pytest.raises(ValueError, match="needs every strength and prompt; got gaps at .*'direction 1', 1.0"):
        as_sweep(rows, sweep.directions, [1.0, 2.0])
    read.usable[1, 0] = False
    with pytest.raises(ValueError, match="Sweep: directions must share two strengths with text; got 1"):
        variance_shares(read, 20)


def test_a_sweep_with_gaps_or_without_text_is_refused():
    sweep = planted(n=5)
    rows = rows_of(sweep)
    with pytest.raises(ValueError, match="every direction needs every strength and prompt; got gaps at"):
        as_sweep(rows.iloc[1:], sweep.directions, STRENGTHS.tolist())
    with pytest.raises(ValueError, match="a point that is not degenerate; got none for direction 0, direction 1"):
        as_sweep(rows.assign(outcome="broken"), sweep.directions, STRENGTHS.tolist())
    with pytest.raises(ValueError, match="at least two benign prompts; got 0"):
        as_sweep(rows.assign(harmful=True), sweep.directions, STRENGTHS.tolist())
