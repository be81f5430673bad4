import numpy as np
import pandas as pd
import pytest
import torch

from refusal_utils.directions.direction_set import DirectionSet, Provenance
from refusal_utils.tradeoff import matching
from refusal_utils.tradeoff.matching import common_strength, match_refusal_rate
from refusal_utils.tradeoff.sweep import Sweep

# How much of a direction's strength it takes to make each of 200 prompts refuse; "late" needs three times as much.
NEEDS = np.random.default_rng(0).gamma(2.0, 1.0, 200)
FACTOR = {"early": 1.0, "late": 3.0, "never": np.inf}


def planted(name, coefficient):
    refused = coefficient >= NEEDS * FACTOR[name]
    return pd.DataFrame(
        {
            "id": range(200),
            "direction": name,
            "coefficient": float(coefficient),
            "outcome": np.where(refused, "refused", "answered"),
        }
    )


@pytest.fixture
def asked(monkeypatch):
    """Sweeps are answered by the planted rule; what was asked is listed."""
    seen = []

    def sweep(chat, controlled, conditions, **options):
        seen.append([(each.direction, each.coefficient) for each in conditions])
        return Sweep(pd.concat([planted(*what) for what in seen[-1]]))

    monkeypatch.setattr(matching, "sweep", sweep)
    return seen


@pytest.fixture
def swept():
    return Sweep(pd.concat([planted(name, coefficient) for name in FACTOR for coefficient in (0.0, 1.0, 4.0, 20.0)]))


def directions(*names):
    return DirectionSet(names, torch.eye(8)[: len(names)], torch.ones(len(names)), Provenance(layer=3))


def test_every_direction_comes_to_the_target_at_its_own_strength(chat, asked, swept):
    rows = match_refusal_rate(chat, pd.DataFrame(), directions("early", "late"), swept, target=0.9).rows
    for name in ("early", "late"):
        own = rows[rows["direction"] == name]
        assert len(own) == 200
        assert own["coefficient"].nunique() == 1
        assert (own["outcome"] == "refused").mean() == pytest.approx(0.9, abs=0.02)
        expected = np.quantile(NEEDS, 0.9) * FACTOR[name]
        assert own["coefficient"].iloc[0] == pytest.approx(expected, rel=0.25)
    assert len(asked) <= 6
    before = (swept.refused(("direction", "coefficient")) - 0.9).abs().groupby("direction").min()
    assert before[["early", "late"]].max() > 0.05  # before: the strengths that were swept do not match


def test_the_first_guess_is_where_a_line_crosses_the_target(chat, asked, swept):
    at_one, at_four = ((coefficient >= NEEDS).mean() for coefficient in (1.0, 4.0))
    target = 0.4 * at_one + 0.6 * at_four
    match_refusal_rate(chat, pd.DataFrame(), directions("early"), swept, target=target)
    assert asked[0] == [("early", pytest.approx(1 + 0.6 * 3))]


def test_what_is_near_enough_or_out_of_reach_is_left_alone(chat, asked, swept):
    rows = match_refusal_rate(chat, pd.DataFrame(), directions("never"), swept).rows
    assert (rows["outcome"] == "refused").mean() == 0
    assert rows["coefficient"].nunique() == 1
    assert not asked
    close = Sweep(pd.concat([swept.rows, planted("early", np.quantile(NEEDS, 0.9))]))
    match_refusal_rate(chat, pd.DataFrame(), directions("early"), close)
    assert not asked


def test_a_direction_out_of_reach_keeps_a_steered_strength_with_intact_text(chat, asked):
    """It lowers refusals, so that no steering comes nearest to the target, and breaks the text at its strongest."""
    outcomes = {0.0: ["refused"] * 5, 1.0: ["refused"] * 3, 2.0: ["refused"] * 2, 9.0: ["refused"] * 4 + ["broken"] * 6}
    rows = [
        (number, "d", strength, ([*own] + ["answered"] * 10)[number])
        for strength, own in outcomes.items()
        for number in range(10)
    ]
    swept = Sweep(pd.DataFrame(rows, columns=["id", "direction", "coefficient", "outcome"]))
    assert match_refusal_rate(chat, pd.DataFrame(), directions("d"), swept).rows["coefficient"].unique() == [1.0]
    only = Sweep(swept.rows[swept.rows["coefficient"] == 9.0])
    assert match_refusal_rate(chat, pd.DataFrame(), directions("d"), only).rows["coefficient"].unique() == [9.0]
    assert not asked


def test_the_search_ends_after_its_steps(chat, asked, swept):
    match_refusal_rate(chat, pd.DataFrame(), directions("late"), swept, tolerance=0.0, n_steps=3)
    assert [[name for name, _ in step] for step in asked] == [["late"]] * 3
    strengths = [step[0][1] for step in asked]
    assert all(4 < strength < 20 for strength in strengths)
    assert len(set(strengths)) == 3


def test_a_direction_that_was_not_swept_is_named(chat, swept):
    with pytest.raises(
        ValueError, match="^match_refusal_rate: every direction must have been swept; got no rows of other"
    ):
        match_refusal_rate(chat, pd.DataFrame(), directions("other"), swept)


def test_the_common_strength_is_one_that_all_directions_have():
    rates = {("a", 0.5): 0.5, ("b", 0.5): 0.7, ("a", 1.0): 0.8, ("b", 1.0): 0.9, ("a", 0.77): 0.9}
    rows = [
        {"direction": name, "gaps": gaps, "outcome": "refused" if prompt < 10 * rate else "answered"}
        for (name, gaps), rate in rates.items()
        for prompt in range(10)
    ]
    swept = Sweep(pd.DataFrame(rows), {"layer": 4})
    for target, gaps in ((0.9, 1.0), (0.5, 0.5)):
        found = common_strength(swept, ["a", "b"], target)
        assert set(found.rows["gaps"]) == {gaps}
        assert found.notes == swept.notes
    assert set(common_strength(swept, ["a"], 0.9).rows["gaps"]) == {0.77}
    broken = swept.rows["outcome"].mask((swept.rows["gaps"] == 1.0) & (swept.rows["direction"] == "b"), "broken")
    unsteered = swept.rows[swept.rows["gaps"] == 0.5].assign(gaps=0.0, outcome="refused")
    for rows in (swept.rows.assign(outcome=broken), pd.concat([swept.rows[swept.rows["gaps"] == 0.5], unsteered])):
        assert set(common_strength(Sweep(rows), ["a", "b"], 0.9).rows["gaps"]) == {0.5}
    with pytest.raises(ValueError, match="^common_strength: the directions must share a positive strength"):
        common_strength(swept, ["a", "c"])
