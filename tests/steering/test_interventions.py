import torch

from refusal_utils.steering.conditions import UNSTEERED, Condition
from refusal_utils.steering.interventions import Ablation, Addition, HeadReplacement, first_edited_layer

VECTOR = torch.ones(4) / 2


def test_the_first_layer_that_an_intervention_changes():
    assert first_edited_layer(Addition(VECTOR, (5, 3)), 8) == 3
    assert first_edited_layer(Addition(VECTOR, (-1,)), 8) == 7
    assert first_edited_layer(Ablation(VECTOR[None]), 8) == 0
    assert first_edited_layer(Ablation(VECTOR[None], layers=(6,)), 8) == 6
    assert first_edited_layer(HeadReplacement(((3, 0), (2, 1)), (-1,), torch.zeros(2, 1, 4)), 8) == 2


def test_the_first_layer_that_a_condition_changes_is_that_of_its_first_intervention():
    assert Condition("c", (Addition(VECTOR, (4,)), Addition(VECTOR, (2,)))).first_layer(8) == 2
    assert UNSTEERED.first_layer(8) == 8
