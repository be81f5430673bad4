"""The same numbers on one thread and on two, and the same bits twice; and the comparison that `make twice` uses."""

import json
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest
import torch

from refusal_utils.directions import mean_direction
from refusal_utils.model.artifacts import SEEDS, note_seed, read_seeds
from refusal_utils.model.capture import capture_activations
from refusal_utils.plotting import saving
from refusal_utils.steering import UNSTEERED, Addition, Condition, generate
from refusal_utils.study import open_study

from .tables import differences
from .twice import main as twice

ROOT = Path(__file__).parents[1]


def measured(chat, prompts, n_threads: int) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """(states, a direction, responses without and with steering along it), on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        states = capture_activations(chat, prompts).at(chat.decision_layer, chat.decision_pos)
        direction = mean_direction(states[::2], states[1::2])
        steered = Condition("steered", (Addition(8 * direction, (chat.decision_layer,)),))
        rows = generate(chat, prompts[:8], [UNSTEERED, steered], max_new_tokens=12)
        return states, direction, list(rows["response"])
    finally:
        torch.set_num_threads(before)


def test_capture_directions_and_generation_are_the_same_on_one_thread_and_on_two(chat, prompts):
    one, two = (measured(chat, prompts, n_threads) for n_threads in (1, 2))
    torch.testing.assert_close(two[0], one[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(two[1], one[1], rtol=1e-4, atol=1e-5)
    assert two[2] == one[2]
    assert len(set(one[2])) > 8  # steering changed responses


def test_the_same_is_measured_twice_bit_for_bit(chat, prompts):
    one, two = (measured(chat, prompts, 1) for _ in range(2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert one[2] == two[2]


def test_tables_that_differ_are_found_and_measured(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, number, text in ((one, 4.0, "a"), (other, 4.02, "b")):
        folder.mkdir()
        table = pd.DataFrame({"x": [number, -8.0], "name": [text, "c"], "seconds": [number * 9, 1.0]})
        table.to_csv(folder / "apart.csv")
        pd.DataFrame({"x": [1.0]}).to_csv(folder / "same.csv")
        pd.DataFrame({"x": [1.0, None if text == "a" else 2.0]}).to_csv(folder / "empty_cell.csv")
    pd.DataFrame({"x": [1.0]}).to_csv(one / "alone.csv")
    found = differences(one, other)
    assert found["same"].to_dict() == {
        "alone.csv": False,
        "apart.csv": False,
        "empty_cell.csv": False,
        "same.csv": True,
    }
    assert found.loc["apart.csv", ["texts", "numbers"]].tolist() == [0.5, pytest.approx(0.02 / 8)]
    assert found.loc["empty_cell.csv", "numbers"] == found.loc["alone.csv", "numbers"] == 1


@pytest.mark.slow
def test_two_runs_of_notebooks_write_the_same_bytes(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["twice", "--notebooks", "01", "--threads", "1", "2"])
    assert twice() == 0
    n = len(list((ROOT / "figures" / "bundled").glob("01_*.csv")))
    assert f"{n} of {n} tables are the same byte for byte" in capsys.readouterr().out


def test_every_result_of_a_study_names_its_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "chrome", lambda: None)
    for seed, name in ((7, "03_a"), (8, "03_b"), (9, "03_a")):
        open_study(figures_dir=tmp_path, seed=seed).save_table(pd.DataFrame({"x": [1]}), name)
    open_study(figures_dir=tmp_path, seed=9).save(go.Figure(), "03_c")
    open_study(figures_dir=tmp_path, seed=3).make_draw(n=4)
    assert read_seeds(tmp_path / "bundled") == {"01_draw": 3, "03_a": 9, "03_b": 8, "03_c": 9}
    (tmp_path / "bundled" / SEEDS).write_text("{")
    assert note_seed(tmp_path / "bundled", "04_c.csv", 5) == tmp_path / "bundled" / "04_c.csv"
    assert json.loads((tmp_path / "bundled" / SEEDS).read_text()) == {"04_c": 5}


def test_committed_results_of_the_bundled_model_name_their_seeds():
    folder = ROOT / "figures" / "bundled"
    reported = {"comparison", "claims"}  # made from the other tables, without chance
    cards = {"14_cards"}  # likewise
    assert {path.stem for path in folder.glob("*.csv")} - reported - cards <= set(read_seeds(folder))
