import re

import numpy as np
import pandas as pd

from refusal_utils.plotting.heads import outcome_dots, token_strip
from refusal_utils.plotting.pairs import size_map
from refusal_utils.prompts.categories import CATEGORY_IDS


def test_size_map_runs_from_zero_to_the_largest():
    frame = pd.DataFrame(np.random.default_rng(0).random((11, 11)), CATEGORY_IDS, CATEGORY_IDS)
    figure = size_map(frame, title="t", value="gap", largest=0.5)
    trace = figure.data[0]
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 0.5)
    np.testing.assert_allclose(np.array(trace.z), frame.to_numpy(), atol=1e-4)
    assert figure.layout.yaxis.autorange == "reversed"
    assert figure.layout.coloraxis.colorbar.title.text == "gap"


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
