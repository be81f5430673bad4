"""The strength at which a direction spends a budget, against a plain search, and what is bought there."""

from importlib import import_module

import numpy as np
import pytest
import torch

from refusal_utils.directions.direction_set import DirectionSet, Provenance
from refusal_utils.directions.estimation import random_directions
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.steering.conditions import Condition
from refusal_utils.steering.first_tokens import kl_spent
from refusal_utils.tradeoff.equal_cost import addition_dial, equal_cost, strengths_at_cost

module = import_module("refusal_utils.tradeoff.equal_cost")  # the package has the function of this name


@pytest.fixture(scope="module")
def directions(chat) -> DirectionSet:
    gaps = torch.tensor([20.0, torch.nan])
    return DirectionSet(("a", "b"), random_directions(2, chat.d_model), gaps, Provenance(layer=4))


def test_the_strength_found_spends_the_budget_within_two_percent(chat, prompts, directions):
    dials = {name: addition_dial(directions, name) for name in directions}
    found = strengths_at_cost(chat, dials, prompts[:6], (0.05, 0.2)).set_index(["name", "budget"])
    for (name, budget), row in found.iterrows():
        condition = dials[name](row["strength"])
        assert float(kl_spent(chat, prompts[:6], [condition])[0]) == pytest.approx(row["nats"], rel=1e-4)
        assert row["nats"] == pytest.approx(budget, rel=0.02)
    assert found["strength"].xs(0.2, level="budget")["a"] > found["strength"].xs(0.05, level="budget")["a"]


def test_a_dial_in_gaps_and_one_in_coefficients_find_the_same_point_and_signs_differ(chat, prompts, directions):
    bare = DirectionSet(("a",), directions.vectors[:1], torch.tensor([torch.nan]), directions.provenance)
    dials = {"gaps": addition_dial(directions, "a"), "raw": addition_dial(bare, "a")}
    dials["against"] = addition_dial(bare, "a", subtract=True)
    strength = strengths_at_cost(chat, dials, prompts[:6], (0.1,)).set_index("name")["strength"]
    assert strength["raw"] == pytest.approx(20 * strength["gaps"], rel=0.02)
    assert dials["against"](2.0).coefficient == -2.0


def cost_of(monkeypatch, cost) -> list[int]:
    """Let a condition's cost be a function of its coefficient; returns the numbers of conditions asked at once."""
    asked = []

    def spent(chat, prompts, conditions):
        asked.append(len(conditions))
        return torch.tensor([cost(each.coefficient) for each in conditions], dtype=torch.float64)

    monkeypatch.setattr(module, "kl_spent", spent)
    return asked


def plain(strength: float) -> Condition:
    return Condition("plain", (), "plain", strength)


@pytest.mark.parametrize("power", [1, 2, 4])
def test_the_search_inverts_a_known_cost_in_a_few_steps(chat, monkeypatch, power):
    asked = cost_of(monkeypatch, lambda strength: 0.03 * strength**power)
    found = strengths_at_cost(chat, {"plain": plain}, ["x"], (0.05, 0.1))
    wanted = (np.array([0.05, 0.1]) / 0.03) ** (1 / power)
    assert found["strength"].to_numpy() == pytest.approx(wanted, rel=0.02)
    assert len(asked) <= 3


def test_a_cost_that_rounding_takes_below_zero_is_halved_past(chat, monkeypatch):
    cost_of(monkeypatch, lambda strength: -1e-12 if strength < 5 else 0.1 * (strength - 5))
    found = strengths_at_cost(chat, {"plain": plain}, ["x"], (0.05,))
    assert found["strength"].item() == pytest.approx(5.5, rel=0.01)


def test_a_budget_that_is_never_spent_is_nan_and_of_several_crossings_the_smallest_counts(chat, monkeypatch):
    cost_of(monkeypatch, lambda strength: 0.08 * (1 - np.exp(-strength)))
    found = strengths_at_cost(chat, {"plain": plain}, ["x"], (0.05, 0.1))
    assert found["strength"].isna().tolist() == [False, True]
    cost_of(monkeypatch, lambda strength: 0.1 * abs(np.sin(strength)))
    strength = strengths_at_cost(chat, {"plain": plain}, ["x"], (0.05,))["strength"][0]
    assert np.sin(strength) == pytest.approx(0.5, rel=0.02)
    assert strength < np.pi / 2
    with pytest.raises(ValueError, match="^strengths_at_cost: budgets must be positive numbers of nats; got"):
        strengths_at_cost(chat, {"plain": plain}, ["x"], (0.0,))


def test_a_large_strength_is_found_up_to_the_largest_that_is_tried(chat, monkeypatch):
    cost_of(monkeypatch, lambda strength: strength * 1e-5)
    found = strengths_at_cost(chat, {"plain": plain}, ["x"], (1e-3, 3e-2, 5e-2))
    assert found["strength"].to_numpy() == pytest.approx([100, 3000, np.nan], rel=0.02, nan_ok=True)
    assert found["nats"].isna().tolist() == [False, False, True]


def test_without_a_gap_to_count_in_a_strength_is_a_coefficient(directions):
    flat = DirectionSet(("a", "b"), directions.vectors, torch.tensor([0.0, 0.5]), directions.provenance)
    assert [addition_dial(flat, name)(3.0).coefficient for name in flat] == [3.0, 1.5]
    assert addition_dial(directions, "b")(3.0).coefficient == 3.0


def test_responses_at_equal_cost_are_those_under_the_same_conditions(chat, directions):
    controlled = load_prompts("advice", "eval").head(4).assign(harmful=[True, True, False, False])
    dials = {name: addition_dial(directions, name) for name in directions}
    benign = list(load_prompts("benign", "eval")["text"].head(4))
    found = equal_cost(chat, controlled, dials, benign, (0.1, 0.4), max_new_tokens=8)
    table = found.table()
    assert table.index.tolist() == [(name, budget) for name in directions for budget in (0.1, 0.4)]
    assert table["RR"].between(table["RR low"], table["RR high"]).all()
    row = found.strengths.iloc[1]
    alone = module.respond(chat, controlled, [dials["a"](row["strength"])], max_new_tokens=8)
    same = found.rows[(found.rows["name"] == "a") & (found.rows["budget"] == 0.4)]
    assert same["response"].tolist() == alone["response"].tolist()
    with pytest.raises(ValueError, match="^equal_cost: at least one dial must spend a budget; got none of 2"):
        equal_cost(chat, controlled, dials, benign, (1e6,))
