from copy import copy

import numpy as np
import pytest
import torch

from refusal_utils.steering.conditions import UNSTEERED, Condition
from refusal_utils.steering.generation import generate
from refusal_utils.steering.interventions import (
    Ablation,
    Addition,
    HeadReplacement,
    LatentClamp,
    PartialAblation,
    first_edited_layer,
    require_fit,
)

VECTOR = torch.ones(4) / 2


def unchecked(intervention, **fields):
    """`intervention` with fields that the type checks of tests would refuse; users have none."""
    changed = copy(intervention)
    vars(changed).update(fields)
    return changed


def clamp(column, **rule):
    """A clamp of two latents."""
    both = column[:, None].expand(-1, 2)
    return LatentClamp(both, torch.zeros(2), both.T, torch.zeros(2), (1,), **rule)


def test_the_first_layer_that_an_intervention_changes():
    assert first_edited_layer(Addition(VECTOR, (5, 3)), 8) == 3
    assert first_edited_layer(Addition(VECTOR, (-1,)), 8) == 7
    assert first_edited_layer(Ablation(VECTOR[None]), 8) == 0
    assert first_edited_layer(Ablation(VECTOR[None], layers=(6,)), 8) == 6
    assert first_edited_layer(HeadReplacement(((3, 0), (2, 1)), (-1,), torch.zeros(2, 1, 4)), 8) == 2


def test_the_first_layer_that_a_condition_changes_is_that_of_its_first_intervention():
    assert Condition("c", (Addition(VECTOR, (4,)), Addition(VECTOR, (2,)))).first_layer(8) == 2
    assert UNSTEERED.first_layer(8) == 8


def test_what_fits_is_accepted(chat, direction):
    require_fit(chat, Addition(direction, (0, -1), "prompt", 2))
    require_fit(chat, Ablation(direction[None], reference=3 * direction))
    require_fit(chat, Addition(direction, (-8, 7)))
    require_fit(chat, HeadReplacement(((3, 1),), (-1,), torch.zeros(1, 1, chat.d_model // 6)))
    require_fit(chat, HeadReplacement(((0, 0), (7, 5)), (-1,), torch.zeros(2, 1, chat.d_model // 6)))
    require_fit(chat, PartialAblation(direction[None], share=0.0))
    require_fit(chat, clamp(direction, k=1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda r: Addition(torch.ones(7), (1,)), "the width must be that of bundled, 192; got 7"),
        (lambda r: Ablation(3 * r[None]), "a direction must have norm 1; got norm 3"),
        (lambda r: Ablation(r[None], reference=r / 0), "a vector must be finite"),
        (lambda r: unchecked(Addition(r, (1,)), vector=r.tolist()), r"it must be a tensor \[d_model\]; got list"),
        (lambda r: unchecked(Addition(r, (1,)), vector=r.numpy()), r"it must be a tensor \[d_model\]; got ndarray"),
        (lambda r: unchecked(Addition(r, (1,)), vector=r[None]), r"it must be .* got Tensor of shape \[1, 192\]"),
        (lambda r: unchecked(Ablation(r[None]), directions=r), r"it must be a tensor \[rank, d_model\]; got Tensor"),
        (lambda r: unchecked(Addition(r, (1,)), layers=5.0), r"layers must be a list of whole numbers; got 5\.0"),
        (lambda r: Addition(r, (True,)), r"layers must be a list of whole numbers; got \(True,\)"),
        (lambda r: Addition(float("nan") * r, (1,)), "a vector must be finite"),
        (lambda r: Addition(r, (1,), every=0), "every must be at least 1; got 0"),
        (lambda r: Addition(r, ()), r"layers must name at least one layer; got \(\) in an Addition"),
        (lambda r: Ablation(r[None], ()), r"layers must name at least one layer; got \(\) in an Ablation"),
        (lambda r: Ablation(r[None][:0]), "an Ablation needs at least one direction; got none"),
        (
            lambda r: HeadReplacement(((3, 6),), (-1,), torch.zeros(1, 1, 32)),
            "a head must be one of 8 layers x 6 heads",
        ),
        (
            lambda r: HeadReplacement(((0, 0), (9, 1)), (-1,), torch.zeros(2, 1, 32)),
            r"a head must be one of 8 layers x 6 heads; got \[\(9, 1\)\]",
        ),
        (lambda r: HeadReplacement(((8, 0),), (-1,), torch.zeros(1, 1, 32)), "a head must be one of 8 layers"),
        (lambda r: HeadReplacement(((-1, 0),), (-1,), torch.zeros(1, 1, 32)), "a head must be one of 8 layers"),
        (lambda r: HeadReplacement(((3, -1),), (-1,), torch.zeros(1, 1, 32)), "a head must be one of 8 layers"),
        (lambda r: Addition(r, (0, -9)), "the layer must be one of 0 to 7; got -9 in an Addition"),
        (lambda r: Addition(r, (8,)), "the layer must be one of 0 to 7; got 8 in an Addition"),
        (lambda r: unchecked(Addition(r, (1,)), every=1.5), r"every must be a whole number; got 1\.5"),
        (
            lambda r: unchecked(Addition(r, (1,)), tokens="some"),
            "tokens must be one of all, prompt, generation; got 'so",
        ),
        (lambda r: PartialAblation(r[None], share=-0.1), r"the share must be from 0 to 1; got -0\.1"),
        (lambda r: clamp(r), "latents need either thresholds or k; got False and None"),
        (lambda r: clamp(r, threshold=torch.zeros(2), k=1), "latents need either thresholds or k; got True and 1"),
        (lambda r: clamp(r / 0, k=1), "a weight must be finite"),
        (
            lambda r: HeadReplacement(((3, 1),), (-2, -1), torch.zeros(1, 1, 32)),
            "values must be given for 1 heads at 2",
        ),
        (lambda r: HeadReplacement(((3, 1),), (-30,), torch.zeros(1, 1, 32)), "positions must lie in the template"),
    ],
)
def test_what_does_not_fit_is_refused(chat, direction, make, message):
    with pytest.raises(ValueError, match=f"^intervene: {message}"):
        require_fit(chat, make(direction))


def test_generate_refuses_what_does_not_fit_before_it_runs(chat, prompts, direction):
    with pytest.raises(ValueError, match="^intervene: an Ablation needs at least one direction"):
        generate(chat, prompts[:1], [Condition("c", (Ablation(direction[None][:0]),))])
    with pytest.raises(ValueError, match="the layer must be one of"):
        generate(chat, prompts[:1], [Condition("c", (Addition(direction, (99,)),))])


@pytest.mark.parametrize("layers", [range(1, 3), np.array([1, 2]), [1, np.int64(2)]])
def test_any_list_of_whole_numbers_names_layers(chat, prompts, direction, layers):
    plain = Addition(50 * direction, (1, 2))
    conditions = [Condition("c", (each,)) for each in (plain, unchecked(plain, layers=layers))]
    first, second = (generate(chat, prompts[:1], [each], max_new_tokens=2) for each in conditions)
    assert first.equals(second)
