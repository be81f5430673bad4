import io
import json
import os
import re
import sys

import pytest

from refusal_utils.model.progress import STATUS
from refusal_utils.workflow import progress
from refusal_utils.workflow.progress import ProgressLine, announce
from refusal_utils.workflow.runner import run_notebook

STATE = {"name": "generate", "done": 40, "total": 1200, "rate": 4.0, "left": 290.0, "estimate": "about 5 min left"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown_while(stream: io.StringIO, every: float, ask) -> str:
    """What a line shows on `stream` while its loop reports STATE, once `ask(text)` holds."""
    with ProgressLine("07_steering", stream, every) as line:
        line.cell = "cell 3 of 14"
        with open(line.variables[STATUS], "w") as file:
            json.dump(STATE, file)
        while not ask(stream.getvalue()):
            pass
    return stream.getvalue()


def test_a_terminal_has_one_line_that_is_updated_and_cleared(monkeypatch):
    monkeypatch.setattr(progress.shutil, "get_terminal_size", lambda: os.terminal_size((60, 24)))
    text = shown_while(Terminal(), 0.01, lambda text: text.count("07_steering") > 3)
    assert text.count("\n") == 1  # the estimate stays
    assert text.endswith("\r\x1b[K")
    lines = [line for line in text.split("\r\x1b[K") if "07_steering" in line]
    assert lines[-1] == "07_steering: 0.0 min, cell 3 of 14; generate 40 of 1,200 rows, 4.0 rows/s, 4:50 left"[:59]


def test_elsewhere_there_are_whole_lines_and_the_estimate_is_told_once():
    text = shown_while(io.StringIO(), 0.01, lambda text: text.count("\n") > 3)
    assert "\r" not in text
    first = "07_steering: 0.0 min, cell 3 of 14; generate 40 of 1,200 rows, 4.0 rows/s, 4:50 left"
    assert f"{first}; about 5 min left\n{first}\n" in text
    assert text.count("about 5 min") == 1
    assert ProgressLine("a", io.StringIO()).every == 30
    assert ProgressLine("a", Terminal()).every == 1


def test_notebooks_side_by_side_share_the_line_of_a_terminal_and_what_stays_is_above_it(monkeypatch, capsys):
    monkeypatch.setattr(progress.shutil, "get_terminal_size", lambda: os.terminal_size((40, 24)))
    screen = Terminal()
    with ProgressLine("03_geometry", screen, 0.01) as one, ProgressLine("09_methods", screen, 0.01) as other:
        one.cell = other.cell = "cell 12 of 14"
        while "03_geometry: 0.0 m | 09_methods: 0.0 mi" not in screen.getvalue():
            pass
        before = screen.getvalue()
        announce("01_draw done")
        assert "\r\x1b[K" in screen.getvalue()[len(before) :]
    assert capsys.readouterr().out == "01_draw done\n"
    assert max(map(len, re.split("[\n\r]", screen.getvalue().replace("\x1b[K", "")))) < 40


@pytest.mark.parametrize(("seconds", "text"), [(5.4, "0:05"), (290, "4:50"), (3600 + 61, "1:01:01")])
def test_time_left_has_hours_only_if_needed(seconds, text):
    assert progress.describe_status(STATE | {"left": seconds}).endswith(f", {text} left")
    assert progress.describe_status(STATE | {"rate": 0}) == "; generate 40 of 1,200 rows"


def test_a_running_notebook_shows_its_cell_and_loop_and_holds_no_bar(notebook, tmp_path, monkeypatch):
    """The kernel's loop waits until the line was shown."""
    seen = tmp_path / "seen"
    body = (
        "import time; from pathlib import Path; from refusal_utils.model.batching import run_batches\n"
        f"def step(rows):\n    while rows[0] == 2 and not Path({str(seen)!r}).exists(): time.sleep(0.02)\n"
        "print(len(list(run_batches('f', [[0, 1], [2], [3]], step, progress='capture'))), 'batches')"
    )
    stream = io.StringIO()
    write = stream.write

    def look(text: str) -> int:
        if "capture 2 of 4 rows" in text:
            seen.touch()
        return write(text)

    stream.write = look
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "EVERY", (0.05, 0.05))
    run_notebook(notebook("01_a.ipynb", body), tmp_path / "out", {"N_DRAWS": 5})
    assert re.search(
        r"01_a: 0\.\d min, cell 3 of 3; capture 2 of 4 rows, [\d.]+ rows/s, \d+:\d\d left\n", stream.getvalue()
    )
    executed = (tmp_path / "out" / "01_a.ipynb").read_text()
    assert "3 batches" in executed
    assert "capture:" not in executed
