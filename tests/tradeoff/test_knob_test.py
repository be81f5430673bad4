from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from refusal_utils.prompts.categories import CATEGORY_IDS
from refusal_utils.tradeoff.curves import tradeoff_curves
from refusal_utils.tradeoff.knob_test import NO_RANGE, NUMBERS, VERDICTS, KnobTest, _compare, knob_test
from refusal_utils.tradeoff.outcomes import Outcomes

from .planted import planted, rows_of
from .test_curves import true_curves


def pairs(*arguments, **options):
    return knob_test(*arguments, **options).pairs


def largest(difference):
    return float(difference[~difference.isnan()].abs().max())


def test_one_knob_is_found_equivalent_whatever_its_scale():
    table = pairs(planted(n=400, gains=((1, 1), (1.5, 1.5), (0.8, 0.8)), jitter=0.1), n_draws=300)
    assert (table["verdict"] == "equivalent").all()
    assert (table["gap"] < 0.1).all()


def test_two_knobs_on_the_same_reach_are_found_different():
    gains = ((1.0, 1.0), (0.2, 1.0), (0.6, 0.6))
    table = pairs(planted(n=150, gains=gains, names=("whole", "benign only", "half")), n_draws=300)
    assert table["verdict"].tolist() == ["different", "equivalent", "different"]
    assert (table["gap_low"] > 0).tolist()[::2] == [True, True]
    assert (table["area"] <= table["gap"]).all()
    assert table["gap"].between(table["gap_low"], table["gap_high"]).all()


def test_directions_on_one_curve_are_not_different_because_one_reaches_less_far():
    """The weaker of the two never leaves the middle of the stronger one's curve."""
    outcomes = planted(n=150, gains=((1.0, 1.0), (0.4, 0.4)))
    row = pairs(outcomes, n_draws=300).iloc[0]
    ends = tradeoff_curves(outcomes, 20).reach
    assert ends["to"].iloc[0] - ends["to"].iloc[1] > 0.1  # what the comparison must not see
    assert row[["from", "to"]].tolist() == pytest.approx([ends["from"].max(), ends["to"].min()])
    assert row["verdict"] == "equivalent"
    assert row["gap"] < 0.1


def test_a_direction_without_reach_has_no_common_range_with_any():
    outcomes = planted(n=100, gains=((1.0, 1.0), (0.0, 0.0), (0.6, 0.6)), names=("one", "none", "other"))
    table = pairs(outcomes, n_draws=300).set_index(["first", "second"])
    assert table["verdict"].to_dict() == {
        ("one", "none"): NO_RANGE,
        ("one", "other"): "equivalent",
        ("none", "other"): NO_RANGE,
    }
    numbers = list(NUMBERS)
    assert table.loc[table["verdict"] == NO_RANGE, numbers].isna().all().all()
    assert table.loc[("one", "other"), numbers].notna().all()
    two = replace(outcomes, refused=outcomes.refused[::2], directions=("one", "other"), usable=outcomes.usable[::2])
    alone = pairs(two, n_draws=300).iloc[0]  # pairs that were not compared do not count in the adjustment
    assert table.loc[("one", "other"), numbers].tolist() == alone[numbers].tolist()
    wide = knob_test(outcomes, min_range=0.99, n_draws=50)
    assert wide.table()[0.1].to_dict() == {**dict.fromkeys(VERDICTS, 0), NO_RANGE: 3}


def test_a_direction_with_a_single_point_has_no_curve_and_breaks_nothing():
    outcomes = planted(n=47)
    outcomes.usable[1] = torch.arange(outcomes.usable.shape[1]) == 3
    at = float(outcomes.refused[1, 3].double().mean())
    assert abs(at * 40 - round(at * 40)) > 0.04  # between two points of the grid
    assert set(tradeoff_curves(outcomes, 20).bands["direction"]) == {"direction 0"}
    row = pairs(outcomes, min_range=0.0, n_draws=50).iloc[0]
    assert (row["verdict"], row["from"], row["to"]) == (NO_RANGE, pytest.approx(at), pytest.approx(at))


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_identical_curves_are_called_different_no_more_often_than_one_in_twenty(scale):
    """Over 200 planted experiments of the controlled set's size, whether or not both directions reach equally far."""
    gains = ((1.0, 1.0), (scale, scale))
    verdicts = [pairs(planted(seed, gains=gains), n_draws=200, seed=seed)["verdict"][0] for seed in range(200)]
    assert np.mean([verdict == "different" for verdict in verdicts]) <= 0.05
    assert NO_RANGE not in verdicts


def test_a_gap_of_three_tenths_is_found_in_most_experiments():
    gains = ((1.0, 1.0), (0.1, 1.0))
    truth = true_curves(gains)
    assert 0.25 < largest(truth[0] - truth[1]) < 0.35
    verdicts = [pairs(planted(seed, gains=gains), n_draws=200, seed=seed)["verdict"][0] for seed in range(50)]
    assert np.mean([verdict == "different" for verdict in verdicts]) > 0.8


def test_curves_a_margin_apart_are_called_equivalent_no_more_often_than_one_in_twenty():
    gains = ((1.0, 1.0), (0.85, 1.0))
    truth = true_curves(gains)
    margin = largest(truth[0] - truth[1])
    p_values = [
        pairs(planted(seed, n=80, gains=gains), margins=[margin], n_draws=200, seed=seed)["p_equivalent"][0]
        for seed in range(150)
    ]
    assert np.mean([p < 0.05 for p in p_values]) <= 0.08


def test_several_margins_are_tested_on_the_same_draws():
    outcomes = planted(n=400, gains=((1, 1), (1.5, 1.5), (0.85, 1.0)), jitter=0.1)
    both = knob_test(outcomes, (0.1, 0.02), n_draws=200)
    for margin in (0.1, 0.02):
        alone = knob_test(outcomes, [margin], n_draws=200)
        assert both.verdicts[margin].tolist() == alone.pairs["verdict"].tolist()
    assert both.table().loc["equivalent"].tolist() == [3, 0]
    pd.testing.assert_frame_equal(both.pairs, knob_test(outcomes, n_draws=200).pairs)


def test_the_numbers_of_a_pair_are_those_counted_by_hand():
    """Twenty draws move the first of two points by 0.01 to 0.20, and the other one by nothing."""
    moves = torch.arange(1, 21).double() / 100
    drawn = torch.stack([0.3 + moves, torch.full((20,), -0.1, dtype=torch.float64)], dim=1)
    data = torch.tensor([[0.3, -0.1]], dtype=torch.float64)
    (gap, gap_low, gap_high, area, area_low, area_high, p_different), within = _compare(
        torch.cat([data, drawn]), [0.355, 0.6]
    )
    assert (gap, area) == pytest.approx((0.3, 0.2))
    assert (gap_low, gap_high) == pytest.approx((0.3 - 0.1905, 0.3 + 0.1905))  # 0.95 of the way from 0.01 to 0.20
    assert (area_low, area_high) == pytest.approx((0.2 - 0.09525, 0.2 + 0.09525))
    assert p_different == pytest.approx(1 / 21)  # nothing moves by 0.3
    assert within == pytest.approx([(1 + 15) / 21, 1 / 21])  # the moves from 0.06 on leave the first margin
    near = torch.tensor([[0.05, 0.05], [0.15, 0.05], [0.05, 0.15]], dtype=torch.float64)
    (_, *ends, _, area_low, _, _), _ = _compare(near, [0.1])
    assert (*ends, area_low) == pytest.approx((0, 0.15, 0))
    far = torch.tensor([[0.95, 0.95], [0.75, 0.75]], dtype=torch.float64)
    (_, *ends, _, _, area_high, p_different), within = _compare(far, [0.1])
    assert (*ends, area_high) == pytest.approx((0.75, 1, 1))
    assert (p_different, *within) == (0.5, 1.0)


def test_the_summary_tells_the_median_and_the_largest_difference():
    table = pd.DataFrame({"gap": [0.1, 0.2, 0.5, np.nan]})
    assert KnobTest(table, pd.DataFrame()).summary() == (
        "3 of 4 pairs have a common range; largest difference of a pair: median 0.20, at most 0.50"
    )


def test_few_prompts_leave_the_question_undecided():
    assert pairs(planted(seed=3, n=12, jitter=1.0), n_draws=300)["verdict"].tolist() == ["undecided"]


def test_pairs_of_kinds_are_counted_once_whatever_their_order():
    tests = pd.DataFrame(
        [
            ("a", "b", 0.1, "equivalent"),
            ("a", "random 0", 0.4, "different"),
            ("b", "random 0", 0.2, "different"),
            ("random 0", "random 1", float("nan"), NO_RANGE),
        ],
        columns=["first", "second", "gap", "verdict"],
    )
    kinds = {"a": "ours", "b": "ours", "random 0": "random", "random 1": "random"}
    for each in (tests, tests.rename(columns={"first": "second", "second": "first"})):
        narrower = ["undecided", "different", "different", NO_RANGE]
        table = KnobTest(each, pd.DataFrame({0.1: each["verdict"], 0.05: narrower})).by_kind(kinds)
        assert list(table.index) == ["ours / ours", "random / ours", "random / random"]
        assert table["pairs"].tolist() == [1, 2, 1]
        assert table["compared"].tolist() == [1, 2, 0]
        assert table[list(VERDICTS)].to_numpy().tolist() == [[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]]
        assert table["within 0.05"].tolist() == [0, 0, 0]
        assert table["median largest difference"].tolist() == pytest.approx([0.1, 0.3, np.nan], nan_ok=True)


def test_the_map_shows_the_largest_difference_of_every_pair_of_categories():
    tested = knob_test(planted(n=20, gains=((1, 1), (0.2, 1.0)), names=CATEGORY_IDS[:2]), n_draws=20)
    figure = tested.figure(title="t")
    values = np.array(figure.data[0].z, dtype=float)
    assert not figure.layout.annotations
    assert figure.layout.coloraxis.cmax == max(0.2, tested.pairs["gap"][0])
    assert values[0, 1] == values[1, 0] == pytest.approx(tested.pairs["gap"][0], abs=1e-4)
    assert values[0, 0] == 0


def test_a_side_with_one_bucket_and_directions_that_break_the_text_are_compared_as_far_as_they_go():
    """Only answered benign prompts: ORR starts at 0, and one direction breaks the text at every steered strength."""
    outcomes = planted(n=40, strengths=torch.tensor([-1.0, 1.0, 2.0, 4.0]), names=("advice", "humanizing"), seed=3)
    rows = rows_of(outcomes)
    rows.loc[rows["direction"] == "humanizing", "outcome"] = "broken"
    prompts = rows.drop_duplicates("id")
    start = prompts.assign(gaps=0.0, outcome=["refused" if i < 20 else "answered" for i in range(80)])
    rows = pd.concat([start, rows], ignore_index=True)
    rows["bucket"] = rows["id"].map(dict(zip(start["id"], ["HR"] * 20 + ["HC"] * 20 + ["BC"] * 40, strict=True)))
    read = Outcomes.from_rows(rows, {name: [-1.0, 1.0, 2.0, 4.0] for name in ("advice", "humanizing")})
    assert torch.bincount(read.stratum).tolist() == [20, 20, 40]
    assert read.overall(read.weights(20))[:, :, 0].unique().tolist() == [0.25]  # (0.5 + 0) / 2 in every draw
    curves = tradeoff_curves(read, 50)
    assert curves.table().loc["humanizing", ["from", "to", "from low", "to high"]].tolist() == [0.25] * 4
    found = knob_test(read, (0.1, 0.05), n_draws=50)
    assert found.pairs["verdict"].tolist() == ["no common range"]
    assert found.summary() == "0 of 1 pairs have a common range"
    figure = found.figure(title="t")
    assert len(figure.data) == 1
    assert figure.layout.annotations[0].text == "0 of 1 pairs have a common range: nothing to compare"
    assert read.variance_shares(10).isna().all(axis=None)
