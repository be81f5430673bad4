import json

import pandas as pd
import pytest

from refusal_utils.notebooks import find_notebooks

from . import analyses, scaling


def test_times_on_a_line_are_on_it_and_others_are_not():
    sizes = pd.DataFrame({"prompts": [1, 2, 4, 8], "conditions": [1, 1, 2, 4]})
    rows = sizes["prompts"] * sizes["conditions"]
    straight = scaling.with_line(sizes.assign(seconds=3 + 2.0 * rows))
    assert straight["off line"].abs().max() < 1e-9
    assert straight["rows a second"].tolist() == pytest.approx((rows / (3 + 2.0 * rows)).tolist())
    assert scaling.with_line(sizes.assign(seconds=rows**1.5))["off line"].abs().max() > 0.05


def test_sizes_are_measured_over_prompts_and_conditions(chat, monkeypatch):
    monkeypatch.setattr(scaling, "N_NEW", 2)
    found = scaling.measure_sizes(chat, prompts=(2, 4), conditions=(2, 3), rounds=1)
    assert found["rows"].tolist() == [4, 6, 8, 12]
    assert (found["seconds"] > 0).all()


def test_on_paper_blocks_are_faster_where_loading_costs_nothing_and_nothing_beats_equal_shares():
    one, whole, blocks = scaling.on_paper(load=0).values()
    assert one / 8 <= blocks < whole < one
    one, whole, blocks = scaling.on_paper().values()
    assert one / 8 <= min(whole, blocks)
    assert max(whole, blocks) < one
    equal = scaling.on_paper([9.24] * 8, n_gpus=8)
    assert equal["8 GPUs, whole models"] == pytest.approx(equal["one GPU"] / 8)
    seconds = scaling.ROWS_PER_MODEL * scaling.MEASURED_SECONDS / scaling.MEASURED_ROWS + scaling.SECONDS_TO_LOAD
    assert equal["8 GPUs, whole models"] == pytest.approx(seconds / 3600)


def test_analyses_are_what_a_notebook_takes_besides_its_start_and_its_loops(tmp_path):
    path = find_notebooks(["07"])[0]
    record = {
        "digest": "",
        "run": "",
        "earlier": {},
        "files": [],
        "minutes": 2.005,
        "work": {"seconds": {"generate": 50}},
    }
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / path.name).write_text(json.dumps({"metadata": {"refusal_utils": record}}))
    before = pd.read_csv(analyses.ANALYSES, dtype={"notebook": str}).set_index("notebook")
    found = analyses.analysis_table(tmp_path, "quick", start=6.0, load=1.0)
    assert found.loc["07", "quick"] == 63.3  # 120.3 - 50 - 7, though the table held whole numbers
    assert found.drop(index="07")["quick"].tolist() == before.drop(index="07")["quick"].tolist()
    assert (found["start"] == 6).all()
