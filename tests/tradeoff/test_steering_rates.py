import numpy as np
import pandas as pd
import pytest
import torch

from refusal_utils.directions.direction_set import DirectionSet, Provenance
from refusal_utils.tradeoff import steering_rates
from refusal_utils.tradeoff.rates import rate_table
from refusal_utils.tradeoff.steering_rates import SteeringRates, rates_by_length, steering_variants
from refusal_utils.tradeoff.sweep import Sweep

DIRECTIONS = DirectionSet(("a", "b"), torch.eye(2, 4), torch.tensor([2.0, 4.0]), Provenance(layer=1))


def rows(name, gaps, outcomes):
    """Outcomes of two harmful, then two benign prompts."""
    frame = pd.DataFrame({"harmful": [True, True, False, False], "outcome": outcomes, "text": "t", "response": "r"})
    return frame.assign(direction=name, gaps=gaps)


def test_steered_and_ablated_rates_stand_side_by_side_in_both_units():
    refusing, answering = ["refused"] * 4, ["answered"] * 4
    steered = pd.concat([rows("a", 0.5, refusing), rows("a", 1.0, refusing), rows("b", 0.5, answering)])
    ablated = pd.concat([rows("b", np.nan, answering), rows("a", np.nan, ["refused", "answered"] * 2)])
    both = SteeringRates(rate_table(steered), rate_table(ablated, "direction"), DIRECTIONS)
    table = both.table(max_orr=1.0)
    assert table.loc[("steered", "a"), ["gaps", "alpha", "RR", "why"]].tolist() == [0.5, 1.0, 1.0, ""]
    assert table.loc[("steered", "b"), "why"] == "RR"
    assert table.loc["ablated", "RR"].to_dict() == {"b": 0.0, "a": 0.5}
    found = both.rows(judge="phrases")
    assert found["coefficient"].tolist() == pytest.approx([1.0, 2.0, 2.0, np.nan, np.nan], nan_ok=True)
    assert found["intervention"].tolist() == ["steered"] * 3 + ["ablated"] * 2
    assert (found["judge"] == "phrases").all()
    figure = both.figure(title="RR")
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 1)
    (drawn,) = figure.data
    assert list(drawn.x)[-1] == "ablated"
    assert [row[-1] for row in drawn.z] == [0.0, 0.5]


def test_variants_have_one_strength_and_names_of_their_own():
    made = steering_variants(DIRECTIONS, "b", n_layers=3)
    names = [each.name for each in made]
    assert names[0] == "both"
    assert names[-1] == "layer 2"
    assert "layer 0" not in names
    assert len({each.digest for each in made}) == len(set(names)) == 7
    assert {(each.direction, each.coefficient, each.gaps) for each in made} == {("b", 4.0, 1.0)}
    assert made[-1].interventions[0].layers == (2,)


def test_rates_by_length_count_the_verdicts_that_the_last_tokens_change(chat, monkeypatch):
    final = ["refused", "refused", "answered", "answered", "refused", "broken", "answered", "answered"]
    early = ["answered", "refused", "answered", "answered", "refused", "answered", "answered", "refused"]
    frame = pd.DataFrame({"gaps": [0.5] * 4 + [1.0] * 4, "harmful": [True, True, False, False] * 2})

    def sweep(chat, controlled, conditions, max_new_tokens):
        return Sweep(frame.assign(outcome={10: early, 50: final}[max_new_tokens], text="t", response="r"))

    monkeypatch.setattr(steering_rates, "sweep", sweep)
    table = rates_by_length(chat, frame, [], [10, 50])
    assert table.index.names == ["tokens", "gaps"]
    assert table["verdicts that change"].to_dict() == {(10, 0.5): 0.25, (10, 1.0): 0.5, (50, 0.5): 0, (50, 1.0): 0}
    assert table.loc[(10, 0.5), ["RR", "ORR", "degenerate"]].tolist() == [0.5, 0, 0]
    assert table.loc[(50, 1.0), ["RR", "ORR", "degenerate"]].tolist() == [0.5, 0, 0.25]
