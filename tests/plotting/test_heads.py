import re

import numpy as np
import pandas as pd

from refusal_utils.plotting.heads import outcome_dots, token_strip


def test_token_strip_shades_by_weight_and_escapes_the_tokens():
    strip = token_strip(["<b>", "cat"], np.array([0.2, 0.8]), "head 5.4")
    assert "&lt;b&gt;" in strip
    assert "<b>head 5.4</b>" in strip
    assert [float(shade) for shade in re.findall(r"rgba\(213,94,0,([\d.]+)\)", strip)] == [0.25, 1]


def test_outcome_dots_has_a_dot_per_category_and_replacement():
    shares = pd.DataFrame({"nothing replaced": [1.0, 0.9], "ablate top 5": [0.2, 0.4]}, ["advice", "humanizing"])
    before, after = outcome_dots(shares, title="t", value="share").data
    assert (before.name, after.name) == tuple(shares)
    assert dict(zip(after.y, after.x, strict=True)) == {"Unqualified advice": 0.2, "Humanizing": 0.4}
