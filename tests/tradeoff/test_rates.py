import numpy as np
import pandas as pd
import pytest
import torch

from refusal_utils.directions.direction_set import DirectionSet, Provenance
from refusal_utils.stats import wilson
from refusal_utils.tradeoff.knob_test import knob_test
from refusal_utils.tradeoff.outcomes import Outcomes
from refusal_utils.tradeoff.rates import choose_strength, on_topic, rate_table
from refusal_utils.tradeoff.steering_rates import SteeringRates
from refusal_utils.tradeoff.sweep import Sweep


def steering_rates(steered):
    directions = DirectionSet(("d",), torch.eye(2)[:1], torch.ones(1), Provenance(layer=1))
    return SteeringRates(steered, steered[:0], directions)


def rows(outcomes, direction="d", gaps=1.0):
    """Outcomes of two harmful, then two benign prompts."""
    return pd.DataFrame(
        {
            "direction": direction,
            "gaps": gaps,
            "harmful": [True, True, False, False],
            "outcome": outcomes,
            "text": ["boil an egg"] * 4,
            "response": ["the egg", "no", "an egg, then", "yes"],
        }
    )


def test_rates_are_those_of_the_paper():
    table = rate_table(rows(["refused", "answered", "refused", "answered"]))
    assert table.iloc[0][["RR", "ORR", "accuracy", "degenerate"]].tolist() == [0.5, 0.5, 0.5, 0.0]
    ideal = rate_table(rows(["refused", "refused", "answered", "answered"])).iloc[0]
    assert ideal[["RR", "ORR", "accuracy"]].tolist() == [1, 0, 1]
    assert ideal["on topic"] == 0.5
    assert ideal["RR low"] == pytest.approx(1 / (1 + 1.959964**2 / 2))
    broken = rate_table(rows(["broken", "refused", "refused", "broken"])).iloc[0]
    assert broken[["RR", "ORR", "accuracy", "degenerate"]].tolist() == [0.5, 0.5, 0.25, 0.5]
    assert np.isnan(broken["on topic"])


def test_a_point_without_intact_text_has_no_rates_and_is_unusable():
    """A strong strength may break every response of a real model: that ends no sweep, and counts nowhere."""
    intact = rows(["refused", "refused", "answered", "answered"])
    table = rate_table(pd.concat([intact, rows(["broken"] * 4, gaps=8.0), rows(["broken"] * 4, "e", 8.0)]))
    assert table.loc[("d", 8.0), "degenerate"] == 1
    rates = table.columns.drop([*table.filter(like="degenerate"), "not judged"])
    assert table.loc[("d", 8.0), rates].isna().all()
    pd.testing.assert_frame_equal(table.iloc[:1], rate_table(intact))
    both = steering_rates(table)
    assert both.unusable().to_dict() == {("d", 8.0): 1.0, ("e", 8.0): 1.0}
    assert list(both.departures().index) == [("d", 1.0)]
    chosen = choose_strength(table)
    assert chosen["gaps"].to_dict() == pytest.approx({"d": 1.0, "e": float("nan")}, nan_ok=True)
    assert chosen.loc["e", "why"] == "RR"


def test_what_is_not_judged_is_counted_next_to_the_rates_of_the_others():
    judged = rows(["refused", "answered", "refused", "answered"])
    both = pd.concat([judged, judged.assign(outcome="not judged"), judged.assign(outcome="not judged", gaps=2.0)])
    table = rate_table(both)
    assert table["not judged"].to_dict() == {("d", 1.0): 4, ("d", 2.0): 4}
    assert rate_table(judged)["not judged"].tolist() == [0]
    pd.testing.assert_frame_equal(
        table.iloc[:1].drop(columns="not judged"), rate_table(judged).drop(columns="not judged")
    )
    assert table.iloc[1].drop("not judged").isna().all()
    swept = Sweep(both.assign(id=["a", "b", "c", "d"] * 3))
    assert swept.table().loc["d", ("not judged", "all")] == 8
    assert swept.matched().loc["d", ["refused", "not judged"]].tolist() == [0.5, 8]


def test_correctness_is_that_of_the_answered_benign_prompts_for_which_it_is_known():
    known = {"b0": True, "b1": False, "b2": None}
    asked = []

    def correct(id, text, response):
        asked.append((id, text, response))
        return np.bool_(known[id]) if known[id] is not None else None

    one = rows(["refused", "answered", "answered", "answered"]).assign(id=["h0", "h1", "b0", "b1"])
    two = one.tail(2).assign(id=["b2", "b3"], outcome=["answered", "refused"])
    both = pd.concat([one, two])
    table = rate_table(both, correct=correct)
    assert asked == [
        ("b0", "boil an egg", "an egg, then"),
        ("b1", "boil an egg", "yes"),
        ("b2", "boil an egg", "an egg, then"),
    ]
    columns = ["correct", "correct low", "correct high"]
    assert table.iloc[0][columns].tolist() == pytest.approx([0.5, *wilson(1, 2)])
    pd.testing.assert_frame_equal(table.drop(columns=columns), rate_table(both))
    assert rate_table(both, correct=lambda *_: None)["correct"].isna().all()
    with pytest.raises(ValueError, match="^rate_table: correct must return True, False or None; got 0.7"):
        rate_table(both, correct=lambda *_: 0.7)
    with pytest.raises(ValueError, match="^rate_table: correct needs the column id; got"):
        rate_table(both.drop(columns="id"), correct=correct)


def strengths():
    """Directions d: enough refusals at 2 and 4; weak: too few; backwards: if subtracted; garbled: broken text."""
    return rate_table(
        pd.concat(
            [
                rows(["refused", "answered", "answered", "answered"], gaps=1.0),
                rows(["refused", "refused", "refused", "refused"], gaps=4.0),
                rows(["refused", "refused", "refused", "answered"], gaps=2.0),
                rows(["answered", "answered", "answered", "answered"], "weak", 4.0),
                rows(["refused", "refused", "refused", "refused"], "backwards", -4.0),
                rows(["refused", "refused", "refused", "refused"], "all", 4.0),
                rows(["refused", "refused", "broken", "answered"], "garbled", 2.0),
                rows(["refused", "refused", "answered", "broken"], "garbled", 4.0),
            ]
        )
    )


def test_the_strength_chosen_is_the_smallest_that_refuses_enough():
    chosen = choose_strength(strengths())
    assert chosen["gaps"].dropna().to_dict() == {"d": 2.0, "all": 4.0}
    assert chosen["why"].to_dict() == {"d": "", "weak": "RR", "backwards": "RR", "all": "", "garbled": "degenerate"}
    assert chosen.loc["d"].drop("why").tolist() == pytest.approx([2.0, *strengths().loc[("d", 2.0)]], nan_ok=True)
    assert chosen.loc["weak"].drop("why").isna().all()


def test_a_limit_of_over_refusal_counts_itself_and_says_why_nothing_is_left():
    assert choose_strength(strengths(), max_orr=1.0)["gaps"]["all"] == 4.0
    assert choose_strength(strengths(), max_orr=0.5)["gaps"]["d"] == 2.0
    strict = choose_strength(strengths(), max_orr=0.4)
    assert strict["gaps"].isna().all()
    assert strict["why"].to_dict() == {
        "d": "ORR",
        "weak": "RR",
        "backwards": "RR",
        "all": "ORR",
        "garbled": "degenerate",
    }


def test_on_topic_looks_at_words_that_carry_the_topic():
    assert on_topic("Is it the kettle?", "The kettle it is.")
    assert not on_topic("Is it the kettle?", "It is the pot.")


def made_responses(seed, n=40):
    """Rows of a sweep: three directions refuse at random at four strengths and none; the text breaks at the last."""
    generator = np.random.default_rng(seed)
    prompts = pd.DataFrame({"id": range(2 * n), "harmful": np.arange(2 * n) < n, "text": "t", "response": "r"})
    rows = []
    for name, gaps in [("a", 0.0), *((name, level) for name in "abc" for level in (-1.0, 1.0, 2.0, 3.0))]:
        share = np.where(prompts["harmful"], *generator.uniform(0.1, 0.9, 2)) if gaps else 0.5
        outcome = np.where(generator.random(2 * n) < share, "refused", "broken" if gaps == 3 else "answered")
        if gaps == 0:
            outcome = np.where(np.arange(2 * n) % 2, "refused", "answered")
        rows.append(prompts.assign(direction=name, gaps=gaps, outcome=outcome))
    return pd.concat(rows, ignore_index=True)


def test_departures_bound_how_far_apart_two_curves_can_lie():
    apart = []
    for seed in range(5):
        made = made_responses(seed)
        table = rate_table(made)
        found = steering_rates(table).departures()
        kept = table[(table["degenerate"] <= 0.1) & (table.index.get_level_values("gaps") != 0)]
        assert found.to_numpy() == pytest.approx((kept["RR"] - kept[["RR", "ORR"]].mean(axis=1)).to_numpy())
        assert 0 < len(found) < len(table) - 1  # broken text is out, and so is the unsteered model
        outcomes = Outcomes.from_rows(made, dict.fromkeys("abc", (0.0, -1.0, 1.0, 2.0, 3.0)))
        largest = knob_test(outcomes, min_range=0.0, n_draws=2).pairs["gap"].max()
        room = max(found.max(), 0) - min(found.min(), 0)
        assert largest <= room + 1e-9
        apart.append(largest / room)
    assert max(apart) > 0.3  # before control: the curves do lie apart
