import inspect

import pytest

from refusal_utils.tradeoff import choose_gaps

BUNDLED = [-0.5, 0.15, 0.25, 0.35, 0.45, 0.7, 1.0], [-0.5, 0.45, 1.0, 2.0]  # those of the committed figures


def test_each_model_has_its_own_strengths_and_given_ones_are_kept():
    assert choose_gaps("bundled") == BUNDLED
    assert choose_gaps("google/gemma-2-9b-it") == choose_gaps("any/other") != BUNDLED
    assert choose_gaps("bundled", [1.0], [2.0]) == choose_gaps("any/other", [1.0], [2.0]) == ([1.0], [2.0])
    assert choose_gaps("bundled", [1.0]) == ([1.0], BUNDLED[1])


@pytest.mark.parametrize("model", ["bundled", "bundled-tokens", "any/other"])
def test_the_strengths_of_every_model_ascend_from_a_subtraction_to_an_addition(model):
    for own in choose_gaps(model):
        assert own == sorted(set(own))
        assert own[0] < 0 < own[-1]
        assert 0 not in own  # which no sweep needs


@pytest.mark.parametrize("model", ["bundled", "any/other"])
def test_few_strengths_are_among_all_of_them_so_that_responses_are_shared(model):
    for few, own in zip(choose_gaps(model, "few", "few"), choose_gaps(model), strict=True):
        assert set(few) < set(own)
        assert few == sorted(few)
    gaps, controls = choose_gaps(model, "few", "few")
    assert {each for each in gaps if each > 0} & {*controls}  # notebook 07 compares them there
    assert min(gaps) < 0 < max(gaps)


@pytest.mark.parametrize("gaps", ["many", 3, 0.5, [], ["a"], [True], [float("nan")], {0.5: 1}])
def test_strengths_that_are_no_finite_numbers_are_refused(gaps):
    with pytest.raises(ValueError, match="^choose_gaps: control_gaps must be a list of finite numbers, 'few' or None;"):
        inspect.unwrap(choose_gaps)("bundled", None, gaps)  # tests check types of signatures
