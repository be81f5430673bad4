import json
import re

import pytest
import torch

from refusal_utils.model import progress
from refusal_utils.model.batching import run_batches
from refusal_utils.model.progress import STATUS, Progress
from refusal_utils.steering import generate


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when the test adds some."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_an_estimate_is_printed_once_if_more_than_a_minute_is_left(clock, capsys):
    def step(rows):
        clock[0] += 0.5 * len(rows)

    batches = [list(range(start, start + 10)) for start in range(0, 300, 10)]
    list(run_batches("f", batches, step, progress="generate", what="responses of up to 50 tokens"))
    (line,) = [line for line in re.split(r"[\r\n]", capsys.readouterr().err) if "min left" in line]
    told = r"generate: 290 more responses of up to 50 tokens, about 2 min left, memory at most \d+\.\d GB so far "
    assert re.match(told, line)
    list(run_batches("f", batches[:12], step, progress="generate"))  # 55 s after the first batch
    assert "min left" not in capsys.readouterr().err
    list(run_batches("f", batches, step))  # without a bar
    assert capsys.readouterr().err == ""


def test_rows_that_were_known_do_not_count_for_the_rate(clock):
    with Progress("capture", 100, bar=False) as shown:
        shown.skip(50)
        assert (shown.rate, shown.seconds_left) == (0, 0)
        clock[0] += 20
        shown.advance(10)
        assert (shown.rate, shown.seconds_left) == (0.5, 80)


def test_a_status_file_replaces_the_bar_and_is_gone_after_the_loop(tmp_path, monkeypatch, capsys, clock):
    file = tmp_path / "status.json"
    monkeypatch.setenv(STATUS, str(file))
    found = []

    def step(rows):
        found.append(json.loads(file.read_text()))
        clock[0] += 10

    batches = [[number] for number in range(20)]
    list(run_batches("f", batches, step))
    assert found[0] == {"name": "f", "done": 0, "total": 20, "estimate": "", "rate": 0, "left": 0}
    assert found[5] | {"estimate": ""} == {
        "name": "f",
        "done": 5,
        "total": 20,
        "estimate": "",
        "rate": 0.1,
        "left": 150,
    }
    assert "19 more rows, about 3 min left" in found[5]["estimate"]
    assert not file.exists()
    with pytest.raises(RuntimeError, match="stop"):
        list(run_batches("f", batches, lambda rows: (_ for _ in ()).throw(RuntimeError("stop"))))
    assert not file.exists()
    monkeypatch.setenv(STATUS, str(tmp_path / ("no" * 200) / "status.json"))  # cannot be written: the loop goes on
    assert len(list(run_batches("f", batches, lambda rows: None, progress="f"))) == 20
    assert "%" not in capsys.readouterr().err


def test_generate_says_what_its_rows_are(chat, prompts, monkeypatch, capsys):
    monkeypatch.setattr(progress, "LONG", 0.0)
    generate(chat, prompts[:4], max_new_tokens=2, batch_tokens=40, progress=True)
    assert "more responses of up to 2 tokens" in capsys.readouterr().err


def test_the_peak_is_at_least_what_was_just_allocated():
    size = 3e8
    block = torch.ones(int(size / 4))
    assert progress.peak_gigabytes() > block.numel() * 4 / 1e9
