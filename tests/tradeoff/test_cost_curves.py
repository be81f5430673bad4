"""Curves at equal cost: gains counted by hand on planted responses, and points as `equal_cost` finds them."""

import numpy as np
import pandas as pd
import pytest
import torch

from refusal_utils.directions.direction_set import DirectionSet, Provenance
from refusal_utils.directions.estimation import random_directions
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.stats import wilson
from refusal_utils.tradeoff.cost_curves import ABLATED, ADDED, CostCurves, cost_curves
from refusal_utils.tradeoff.equal_cost import EqualCost, MethodDials, ablation_dial, strengths_at_cost

N, BUDGETS = 40, (0.1, 0.2)


def planted(refused: dict[tuple[str, str, float], int]) -> CostCurves:
    """Curves in which the first `refused[intervention, name, budget]` of `N` a side are refused; 20 unsteered."""

    def rows(n: int) -> pd.DataFrame:
        sides = [
            pd.DataFrame(
                {
                    "id": [f"{side}{number}" for number in range(N)],
                    "text": "what",
                    "response": "this",
                    "harmful": side == "h",
                    "bucket": side,
                    "outcome": np.where(np.arange(N) < n, "refused", "answered"),
                }
            )
            for side in "hb"
        ]
        return pd.concat(sides, ignore_index=True)

    found = {}
    for how in (ADDED, ABLATED):
        own = {key[1:]: n for key, n in refused.items() if key[0] == how}
        cells = [rows(n).assign(name=name, budget=budget) for (name, budget), n in own.items()]
        strengths = pd.DataFrame([(*key, 1.0, key[1]) for key in own], columns=["name", "budget", "strength", "nats"])
        found[how] = EqualCost(strengths, pd.concat(cells))
    return CostCurves(found, rows(20))


STRONG = {(ADDED, "strong", 0.1): 30, (ADDED, "strong", 0.2): 38, (ABLATED, "strong", 0.1): 10}
STRONG |= {(ABLATED, "strong", 0.2): 4}
WEAK = {(how, "weak", budget): 20 + (2 if how == ADDED else -2) for how in (ADDED, ABLATED) for budget in BUDGETS}


def test_gains_are_the_differences_of_refusal_at_one_budget_with_paired_intervals():
    gains = planted(STRONG | WEAK).gains("strong", n_draws=300)
    assert gains.loc[(ADDED, 0.2, "strong"), "more"] == gains.loc[(ADDED, 0.2, "strong"), "high"] == 0
    row = gains.loc[(ADDED, 0.2, "weak")]
    assert (row["overall"], row["more"]) == pytest.approx((22 / 40, -16 / 40))
    assert row["low"] < row["more"] < row["high"] < 0
    assert gains.loc[(ABLATED, 0.1, "weak"), "more"] == pytest.approx(8 / 40)
    assert len(gains) == 8
    counts = planted(STRONG | WEAK).verdicts("strong", ["weak"], n_draws=300)  # it raises and lowers refusal less
    assert counts["clearly less"].tolist() == [1, 1, 1, 1]
    assert counts[["clearly more", "undecided"]].to_numpy().sum() == 0


def test_verdicts_say_more_of_what_turns_refusal_further_and_undecided_of_what_turns_it_as_far():
    same = {(how, "same", budget): n for (how, _, budget), n in WEAK.items()}
    counts = planted(STRONG | WEAK | same).verdicts("weak", ["strong", "same"], n_draws=300)
    assert counts.index.tolist() == [(how, budget) for how in (ABLATED, ADDED) for budget in BUDGETS]
    assert counts["clearly more"].tolist() == counts["undecided"].tolist() == [1, 1, 1, 1]
    assert counts["clearly less"].sum() == 0


def test_a_point_with_broken_text_has_no_gain():
    curves = planted(STRONG | WEAK)
    rows = curves.interventions[ADDED].rows
    at = (rows["name"] == "strong") & (rows["budget"] == 0.2)
    rows["outcome"] = rows["outcome"].mask(at & (np.arange(len(rows)) % 5 == 0), "broken")  # every fifth response
    gains = curves.gains("weak", n_draws=20)
    assert len(gains) == 7
    assert (ADDED, 0.2, "strong") not in gains.index


def test_outcomes_of_some_names_are_those_and_their_budgets():
    curves = planted(STRONG | WEAK | {(ADDED, "once", 0.1): 25, (ABLATED, "once", 0.2): 15})
    found = curves.outcomes(["once", "strong"])
    assert found.directions == ("once", "strong")
    once = [budget for budget, usable in zip(found.strengths, found.usable[0], strict=True) if usable]
    assert sorted(once) == [-0.2, 0.0, 0.1]
    assert found.overall(found.weights(0))[0, 0, [found.strengths.index(each) for each in sorted(once)]].tolist() == (
        pytest.approx([15 / 40, 20 / 40, 25 / 40])
    )


def test_names_are_matched_at_the_median_reach_and_one_that_falls_short_has_no_number():
    stronger = {(how, "stronger", budget): n for (how, _, budget), n in STRONG.items()}
    matched = planted(STRONG | WEAK | stronger).matched(["strong", "weak", "stronger"], n_draws=50)
    assert matched.index.get_level_values("overall").unique().tolist() == [0.1, 0.95]
    own = matched.xs("strong", level="name")
    assert own["RR"].to_numpy() == pytest.approx([0.1, 0.95])
    assert own["ORR"].to_numpy() == pytest.approx(own["RR"])  # both sides are refused alike
    assert matched.xs("weak", level="name")["RR"].isna().all()
    alone = planted(STRONG | WEAK).matched(["weak"], n_draws=50)
    assert alone.index.get_level_values("overall").unique().tolist() == pytest.approx([0.45, 0.55])


def test_a_curve_runs_from_the_largest_ablation_through_the_unsteered_model_to_the_largest_addition():
    figure = planted(STRONG | WEAK).figure(title="Curves")
    assert [trace.name for trace in figure.data] == ["strong", "weak"]
    assert list(figure.data[0].y) == [0.1, 0.25, 0.5, 0.75, 0.95]
    assert figure.data[0].error_y.array is not None
    assert figure.data[1].error_y.array is None
    low, high = wilson(38, N)  # of the largest addition of the first name
    bars = figure.data[0].error_y
    assert (0.95 - bars.arrayminus[-1], 0.95 + bars.array[-1]) == pytest.approx((low, high), abs=1e-3)
    named = planted(STRONG | WEAK).figure(title="Curves", names={"strong": "Strong method"})
    assert [trace.name for trace in named.data] == ["Strong method", "weak"]
    with_control = planted(STRONG | {(how, "random 0", 0.1): 20 for how in (ADDED, ABLATED)}).figure(title="Curves")
    assert with_control.data[1].line.color == "#888888"


@pytest.fixture(scope="module")
def directions(chat) -> DirectionSet:
    return DirectionSet(("a", "b"), random_directions(2, chat.d_model), torch.ones(2), Provenance(layer=4))


def test_an_ablation_spends_its_budget_or_all_it_can(chat, prompts, directions):
    found = strengths_at_cost(chat, {"a": ablation_dial(directions, "a")}, prompts[:6], (1e-4, 9.0), most=1.0)
    small, all_of_it = found.itertuples()
    assert 0 < small.strength < 1
    assert small.nats == pytest.approx(1e-4, rel=0.02)
    assert all_of_it.strength == 1
    assert all_of_it.nats < 9


def test_curves_have_a_point_per_direction_intervention_and_budget(chat, directions):
    controlled = load_prompts("advice", "eval").head(4).assign(harmful=[True, True, False, False])
    benign = list(load_prompts("benign", "eval")["text"].head(4))
    dials = MethodDials.of({"both": directions}, DirectionSet(("random 0",), *directions_of(directions)))
    found = cost_curves(chat, controlled, dials, benign, (0.05, 0.1), max_new_tokens=8)
    table = found.table()
    assert table.index.tolist() == [
        (how, name, budget) for how in (ABLATED, ADDED) for name in ("both", "random 0") for budget in (0.05, 0.1)
    ]
    assert table.loc[ABLATED, "strength"].between(1e-3, 1).all()
    assert (table["nats"] <= 1.02 * table.index.get_level_values("budget")).all()
    both = dials.ablations(["both"])["both"].interventions[0].directions
    assert both.shape == (2, chat.d_model)  # the whole set is ablated


def directions_of(directions: DirectionSet) -> tuple:
    return directions.vectors[:1], directions.gaps[:1], directions.provenance
