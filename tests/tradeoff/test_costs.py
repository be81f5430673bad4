import pandas as pd
import pytest
import torch

from refusal_utils.directions.direction_set import DirectionSet, Provenance
from refusal_utils.directions.estimation import random_directions
from refusal_utils.steering.first_tokens import kl_spent
from refusal_utils.tradeoff.costs import SteeringCosts, steering_costs
from refusal_utils.tradeoff.sweep import Sweep, sweep_conditions


def test_costs_are_the_divergence_of_the_first_token_and_the_strength_in_every_unit(chat, prompts):
    directions = DirectionSet(("a",), random_directions(1, chat.d_model), torch.tensor([2.0]), Provenance(layer=4))
    conditions = sweep_conditions(directions, coefficients=(0.0, 5.0, 20.0))
    spent = kl_spent(chat, prompts[:6], conditions)
    outcomes = {0.0: "answered", 5.0: "refused", 20.0: "broken"}
    rows = [(text, "BC", "a", *given) for given in outcomes.items() for text in prompts[:6]]
    swept = Sweep(pd.DataFrame(rows, columns=["text", "bucket", "direction", "coefficient", "outcome"]))
    found = steering_costs(chat, swept, conditions, 3 * torch.eye(4, chat.d_model), {"a": "one"})
    row = found.values.iloc[1]
    assert row[["coefficient", "over norm", "gaps", "refused"]].tolist() == pytest.approx([5, 5 / 3, 2.5, 1])
    assert row["nats"] == pytest.approx(float(spent[1]))
    mixed = pd.concat([swept.rows, swept.rows.assign(bucket="BR", text="Another one.")])
    only_refused = swept.rows.assign(bucket="BR")  # a model that refuses every benign prompt
    for rows in (mixed, only_refused):
        again = steering_costs(chat, Sweep(rows), conditions, 3 * torch.eye(4, chat.d_model), {"a": "one"})
        assert again.values["nats"].tolist() == pytest.approx(spent.tolist())


def test_agreement_is_over_the_directions_of_one_kind_and_positive_strengths():
    values = pd.DataFrame(
        {
            "direction": ["a", "b", "a", "b", "c", "a"],
            "kind": ["one", "one", "one", "one", "other", "one"],
            "coefficient": [1.0, 4.0, 2.0, 8.0, 9.0, -1.0],
            "gaps": [0.1, 0.2, 0.3, 0.4, 0.1, -0.1],
            "nats": [0.4, 0.3, 0.2, 0.1, 0.1, 9.0],
            "refused": [0.5, 0.6, 0.7, 0.8, 0.1, 1.0],
        }
    )
    costs = SteeringCosts(values)
    assert costs.agreement("one").to_dict() == pytest.approx({"coefficient": 0.8, "gaps": 1.0, "nats": -1.0})
    table = costs.table([0.1])
    assert table["nats"].to_dict() == {0.1: {"one": 0.4, "other": 0.1}}
    unsteered = values.tail(1).assign(coefficient=0.0, gaps=0.0)
    assert SteeringCosts(pd.concat([values, unsteered])).steered.equals(costs.steered)
    three = values.head(3).assign(gaps=0.1, nats=[0.1, 0.2, 0.9], refused=[0.0, 0.9, 1.0])
    assert SteeringCosts(three).table([0.1]).iloc[0].tolist() == [0.2, 0.9]  # medians
    figure = costs.figure(title="t", x="nats spent")
    assert figure.layout.xaxis.type == "log"
    assert sum(len(trace.x) for trace in figure.data) == 5
