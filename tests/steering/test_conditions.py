from math import isnan, nan

import pytest
import torch

from refusal_utils.directions.direction_set import DirectionSet, Provenance
from refusal_utils.directions.estimation import normalize
from refusal_utils.steering import UNSTEERED, Condition, ablation_condition, generate, steering_condition
from refusal_utils.steering.interventions import Ablation, PartialAblation, SequentialAblation


@pytest.fixture(scope="module")
def directions(chat) -> DirectionSet:
    vectors = normalize(torch.randn(3, chat.d_model, generator=torch.Generator().manual_seed(3)))
    return DirectionSet(("first", "second", "loose"), vectors, torch.tensor([7.3, 2.0, nan]), Provenance(layer=4))


def test_a_strength_is_the_same_condition_in_either_unit(directions):
    in_gaps = steering_condition(directions, "first", gaps=0.7)
    as_coefficient = steering_condition(directions, "first", coefficient=0.7 * directions.gap("first"))
    assert in_gaps.digest == as_coefficient.digest
    assert in_gaps.gaps == as_coefficient.gaps == 0.7
    assert (in_gaps.direction, in_gaps.coefficient) == ("first", 0.7 * directions.gap("first"))
    (edit,) = in_gaps.interventions
    torch.testing.assert_close(edit.vector, 0.7 * directions.gap("first") * directions["first"])
    assert edit.layers == (4,)  # where the direction was read
    assert steering_condition(directions, "first", gaps=1.0, layer=2).interventions[0].layers == (2,)


def test_every_strength_in_gaps_comes_back_as_it_was_given(directions):
    strengths = [step / 20 for step in range(-20, 41)]
    assert [steering_condition(directions, "first", gaps=each).gaps for each in strengths] == strengths


def test_strength_zero_is_the_unsteered_model_and_the_unknown_gap_stays_unknown(directions):
    zero = steering_condition(directions, "loose", gaps=0.0)
    assert zero.digest == UNSTEERED.digest
    assert zero.gaps == UNSTEERED.gaps == 0
    assert isnan(steering_condition(directions, "loose", coefficient=3.0).gaps)


def test_an_ablation_has_a_direction_and_no_strength(directions):
    one, two = ablation_condition(directions, "first"), ablation_condition(directions, "first", "second", layers=(3,))
    assert one.direction == "first"
    assert isnan(one.coefficient)
    assert isnan(one.gaps)
    assert two.interventions[0].directions.shape == (2, directions.vectors.shape[1])
    assert two.interventions[0].layers == (3,)


def test_an_ablation_of_a_share_or_in_turn_is_of_that_kind_and_says_so(directions):
    pair = ("first", "second")
    half, turn = ablation_condition(directions, *pair, share=0.5), ablation_condition(directions, *pair, in_turn=True)
    whole, one = ablation_condition(directions, *pair), ablation_condition(directions, "first")
    kinds = [type(each.interventions[0]) for each in (one, whole, half, turn)]
    assert kinds == [Ablation, Ablation, PartialAblation, SequentialAblation]
    assert half.interventions[0].share == 0.5
    names = ["ablate first", "ablate first + second", "ablate 0.5 of first + second", "ablate first, second"]
    assert [each.name for each in (one, whole, half, turn)] == names
    assert [each.direction for each in (whole, half, turn)] == ["first + second", "first + second", "first, second"]
    assert len({each.digest for each in (one, whole, half, turn)}) == 4
    assert one.gap == pytest.approx(7.3)
    assert isnan(whole.gap)
    with pytest.raises(ValueError, match="^ablation_condition: directions removed in turn must be .* got share 0.5"):
        ablation_condition(directions, *pair, in_turn=True, share=0.5)


@pytest.mark.parametrize("strength", [{}, {"coefficient": 1.0, "gaps": 1.0}])
def test_a_strength_is_given_in_exactly_one_unit(directions, strength):
    with pytest.raises(ValueError, match="^steering_condition: the strength must be given in exactly one unit"):
        steering_condition(directions, "first", **strength)


def test_requests_that_name_nothing_are_refused(directions):
    with pytest.raises(ValueError, match="^steering_condition: the gap of loose must be known"):
        steering_condition(directions, "loose", gaps=1.0)
    with pytest.raises(ValueError, match="^DirectionSet: the name must be one of first, second, loose"):
        steering_condition(directions, "third", gaps=1.0)
    with pytest.raises(ValueError, match="^ablation_condition: there must be at least one direction"):
        ablation_condition(directions)


def test_strengths_that_agree_to_four_digits_are_two_conditions(chat, prompts, directions, tmp_path):
    """Close strengths keep their own rows, and each says what it says when it is run alone."""
    strengths = [40.0, 40.0001]
    pair = [steering_condition(directions, "first", coefficient=each) for each in strengths]
    assert pair[0].name == pair[1].name
    assert pair[0].digest != pair[1].digest
    rows = generate(chat, prompts[:3], pair, max_new_tokens=4, cache_dir=tmp_path)
    assert rows["coefficient"].tolist() == [40.0] * 3 + [40.0001] * 3
    (path,) = tmp_path.iterdir()
    assert path.read_text().count("\n") == 6
    for condition in pair:
        alone = generate(chat, prompts[:3], [condition], max_new_tokens=4)
        own = rows[rows["coefficient"] == condition.coefficient]
        assert own["response"].tolist() == alone["response"].tolist()


def test_the_columns_of_generate_are_the_fields_of_its_conditions(chat, prompts, directions):
    conditions = [
        UNSTEERED,
        steering_condition(directions, "second", gaps=0.5),
        ablation_condition(directions, "first"),
    ]
    rows = generate(chat, prompts[:2], conditions, max_new_tokens=3)
    assert rows["condition"].tolist() == [each.name for each in conditions for _ in range(2)]
    assert rows["direction"].tolist() == ["", "", "second", "second", "first", "first"]
    assert rows["coefficient"].tolist()[:4] == [0.0, 0.0, 1.0, 1.0]
    assert rows["gaps"].tolist()[:4] == [0.0, 0.0, 0.5, 0.5]
    assert rows[["coefficient", "gaps"]].iloc[4:].isna().all().all()


def test_paired_rows_may_share_a_condition(chat, prompts, directions):
    condition = steering_condition(directions, "first", gaps=1.0)
    paired = generate(chat, prompts[:2], [condition, condition], max_new_tokens=3, paired=True)
    assert (
        paired["response"].tolist() == generate(chat, prompts[:2], [condition], max_new_tokens=3)["response"].tolist()
    )


def test_the_digest_tells_what_a_condition_does_whatever_its_name(directions):
    first = steering_condition(directions, "first", coefficient=2.0)
    assert first.digest == Condition("other", first.interventions, "other", 5.0).digest
    others = [
        UNSTEERED,
        steering_condition(directions, "first", coefficient=4.0),
        steering_condition(directions, "second", coefficient=2.0),
        steering_condition(directions, "first", coefficient=2.0, layer=5),
        steering_condition(directions, "first", coefficient=2.0, tokens="prompt"),
        steering_condition(directions, "first", coefficient=2.0, every=2),
        steering_condition(directions, "first", coefficient=2.0, keep_norm=True),
        ablation_condition(directions, "first"),
    ]
    assert len({first.digest} | {other.digest for other in others}) == 1 + len(others)
