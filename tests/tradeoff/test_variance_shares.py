from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from refusal_utils.tradeoff.outcomes import Outcomes

from .planted import planted, rows_of


def test_shares_find_strength_and_no_direction_if_there_is_none():
    found = [planted(seed, n=60).variance_shares(n_draws=2)["share"] for seed in range(20)]
    shares = pd.concat(found, axis=1).mean(axis=1)
    assert shares["strength"] > 0.3
    assert shares["direction given strength"] < 0.003


def test_shares_are_those_of_the_cells_for_many_prompts():
    outcomes = planted(n=300, gains=((1, 1), (0.2, 0.2)))
    row = outcomes.variance_shares(n_draws=50).loc["direction given strength"]
    cells = outcomes.refused.double().mean(-1)
    plain = cells.var(0, correction=1).mean() / (cells.mean() * (1 - cells.mean()))
    assert row["share"] == pytest.approx(float(plain), abs=0.01)
    assert 0.02 < row["low"] <= row["share"] <= row["high"]


def test_shares_use_the_strengths_that_all_directions_have():
    outcomes = planted(n=40, jitter=0.0, gains=((1, 1), (0.8, 0.8)), strengths=torch.tensor([0.0, 1.0, 2.0, 3.0]))
    rows = rows_of(outcomes)
    read = Outcomes.from_rows(rows, {"direction 0": [1.0, 2.0, 3.0], "direction 1": [2.0]})
    common = Outcomes.from_rows(rows, dict.fromkeys(outcomes.directions, (2.0,)))
    pd.testing.assert_frame_equal(read.variance_shares(20), common.variance_shares(20))
    only = replace(read, usable=torch.tensor([[False, True, True, True], [True, False, True, False]]))
    assert only.variance_shares(20).isna().all(axis=None)  # one strength has no variance to share
    assert Outcomes.from_rows(rows, {"direction 0": [1.0, 2.0]}).variance_shares(20).isna().all(axis=None)
    assert np.isfinite(read.variance_shares(20).to_numpy()).all()
