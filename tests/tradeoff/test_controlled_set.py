import numpy as np
import pandas as pd
import pytest

from refusal_utils.tradeoff.controlled_set import controlled_set


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


def test_controlled_set_refuses_leaks_and_small_buckets():
    rows = pool()
    with pytest.raises(
        ValueError, match="^controlled_set: no prompt may be one that a direction was .* got 1 .advice-refused-3."
    ):
        controlled_set(rows, n=5, exclude=["  Prompt ADVICE refused 3"])
    with pytest.raises(ValueError, match=r"^controlled_set: every bucket must have 30 prompts; got .*'BR': .*20.*n=20"):
        controlled_set(rows, n=30)


def test_controlled_set_names_the_bucket_that_is_empty_and_what_to_pass():
    rows = pool()
    for bucket, category, outcome, todo in (
        ("HR", "harmful", "refused", "Pass plainly harmful prompts"),
        ("HC", "harmful", "answered", "Pass subtler or milder harmful prompts"),
        ("BR", "benign", "refused", "Pass benign prompts that sound harmful"),
        ("BC", "benign", "answered", "Pass ordinary benign prompts"),
    ):
        gone = ((rows["category"] == "benign") == (category == "benign")) & (rows["outcome"] == outcome)
        with pytest.raises(ValueError, match=f"controlled_set: .* got none in {bucket}, {category} prompts") as error:
            controlled_set(rows[~gone], n=5)
        assert todo in str(error.value)
        assert "n=0" not in str(error.value)
    for n in (0, -3):
        with pytest.raises(ValueError, match=f"controlled_set: n must be at least 1; got {n}"):
            controlled_set(rows, n=n)
