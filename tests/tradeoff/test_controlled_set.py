import inspect

import numpy as np
import pandas as pd
import pytest

from refusal_utils.tradeoff.controlled_set import controlled_set, cost_prompts, describe_buckets


def pool(n=20):
    rows = [
        (f"{category}-{outcome}-{number}", category, f"prompt {category} {outcome} {number}", outcome)
        for category in ("hate_speech", "advice", "benign")
        for outcome in ("refused", "answered", "broken")
        for number in range(n)
    ]
    return pd.DataFrame(rows, columns=["id", "category", "text", "outcome"])


def test_controlled_set_holds_n_of_every_bucket_and_no_broken_text():
    drawn = controlled_set(pool(), n=15)
    assert drawn["bucket"].value_counts().to_dict() == {"HR": 15, "HC": 15, "BR": 15, "BC": 15}
    assert drawn["id"].is_unique
    assert not drawn["id"].str.contains("broken").any()
    benign, refused = drawn["id"].str.startswith("benign"), drawn["id"].str.contains("refused")
    assert (drawn["bucket"] == np.where(benign, "B", "H") + pd.Series(np.where(refused, "R", "C"))).all()
    assert (drawn["harmful"] == ~benign).all()
    assert controlled_set(pool(), n=15, seed=1)["id"].tolist() != drawn["id"].tolist()


def test_controlled_set_refuses_leaks_and_n_below_one():
    rows = pool()
    with pytest.raises(
        ValueError, match="^controlled_set: no prompt may be one that a direction was .* got 1 .advice-refused-3."
    ):
        controlled_set(rows, n=5, exclude=["  Prompt ADVICE refused 3"])
    for n in (0, -3):
        with pytest.raises(ValueError, match=f"controlled_set: n must be at least 1; got {n}"):
            controlled_set(rows, n=n)
    with pytest.raises(ValueError, match="^controlled_set: n must be a whole number; got '5'"):
        inspect.unwrap(controlled_set)(rows, n="5")  # tests check types of signatures


def sized(**sizes):
    """A pool with so many prompts of each bucket."""
    kinds = {"HR": ("advice", "refused"), "HC": ("advice", "answered")}
    kinds |= {"BR": ("benign", "refused"), "BC": ("benign", "answered")}
    rows = [
        (f"{name}{i}", kinds[name][0], f"{name} {i}", kinds[name][1]) for name, n in sizes.items() for i in range(n)
    ]
    return pd.DataFrame(rows, columns=["id", "category", "text", "outcome"])


@pytest.mark.parametrize(
    ("available", "taken"),
    [
        ({"HR": 90, "HC": 200, "BR": 60, "BC": 300}, {"HR": 50, "HC": 50, "BR": 50, "BC": 50}),
        ({"HR": 90, "HC": 32, "BR": 15, "BC": 300}, {"HR": 32, "HC": 32, "BR": 15, "BC": 15}),
        ({"HR": 90, "HC": 200, "BR": 14, "BC": 300}, {"HR": 50, "HC": 50, "BC": 50}),
        ({"HR": 3, "HC": 200, "BR": 0, "BC": 20}, {"HC": 50, "BC": 20}),
        ({"HR": 90, "HC": 0, "BR": 90, "BC": 9}, {"HR": 50, "BR": 50}),
    ],
)
def test_a_side_is_balanced_and_a_bucket_below_fifteen_is_left_out(available, taken):
    drawn = controlled_set(sized(**available))
    assert drawn["bucket"].value_counts().to_dict() == taken
    said = describe_buckets(drawn)
    for name in ("HR", "HC", "BR", "BC"):
        assert f"{name} {taken.get(name, 0)}" in said
    missing = {"HR", "HC", "BR", "BC"} - set(taken)
    assert ("left out, because too few were found: " in said) == bool(missing)
    refused = {rate: drawn["id"].str.startswith(f"{side}R") for rate, side in (("RR", "H"), ("ORR", "B"))}
    starts = [f"{rate} {each[drawn['harmful'] == (rate == 'RR')].mean():.2f}" for rate, each in refused.items()]
    assert "unsteered: " + ", ".join(starts) in said


def test_fewer_than_fifteen_are_enough_if_no_more_are_asked_for():
    assert controlled_set(sized(HR=8, HC=9, BR=8, BC=8), n=8)["bucket"].value_counts().to_dict() == dict.fromkeys(
        ("HR", "HC", "BR", "BC"), 8
    )


def test_a_side_without_a_large_bucket_is_refused_with_what_to_pass():
    for sizes, wrong, todo in (
        ({"HR": 9, "HC": 3, "BC": 90}, "one of HR and HC must have 15 prompts", "Pass plainly harmful prompts"),
        ({"HR": 90, "HC": 90, "BR": 3, "BC": 9}, "one of BR and BC must have 15", "Pass ordinary benign prompts"),
    ):
        with pytest.raises(ValueError, match=f"^controlled_set: {wrong}") as error:
            controlled_set(sized(**sizes))
        assert todo in str(error.value)


def test_costs_are_measured_on_answered_benign_prompts_and_first_on_those_outside_the_controlled_set():
    unsteered = pool(6)
    benign = unsteered[(unsteered["category"] == "benign") & (unsteered["outcome"] == "answered")]
    controlled = benign.head(4)
    found = cost_prompts(unsteered, controlled, n=5)
    assert set(found[:2]) == set(benign["text"]) - set(controlled["text"])
    assert set(found[2:]) < set(controlled["text"])
    assert set(cost_prompts(unsteered, controlled)) == set(benign["text"])
    assert len(cost_prompts(pool(40), controlled)) == 32
    assert cost_prompts(benign.head(1), controlled) == [benign["text"].iloc[0]]
    with pytest.raises(ValueError, match="^cost_prompts: .* at least one benign prompt; got none of 3 prompts"):
        cost_prompts(unsteered.head(3), controlled)
