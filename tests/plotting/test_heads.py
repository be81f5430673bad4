import pandas as pd

from refusal_utils.plotting.heads import outcome_dots


def test_outcome_dots_has_a_dot_per_category_and_replacement():
    shares = pd.DataFrame({"nothing replaced": [1.0, 0.9], "ablate top 5": [0.2, 0.4]}, ["advice", "humanizing"])
    before, after = outcome_dots(shares, title="t", value="share").data
    assert (before.name, after.name) == tuple(shares)
    assert dict(zip(after.y, after.x, strict=True)) == {"Unqualified advice": 0.2, "Humanizing": 0.4}
