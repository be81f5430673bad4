import re
from types import SimpleNamespace

import pytest

from refusal_utils.latents import latent_firing

from . import bench


def measured(out: str, figure: str) -> float:
    return float(re.search(rf"^{figure}.*? (\d+\.\d+)  \(", out, re.M)[1])


@pytest.mark.parametrize(("ratio", "status"), [(7.0, 1), (9.0, 0)])
def test_the_bench_exits_with_1_where_a_target_is_missed(monkeypatch, capsys, ratio, status):
    monkeypatch.setattr(
        bench,
        "BENCHES",
        {
            "one": lambda: bench.report("speed", [ratio], ">= 8", ratio >= 8),
            "two": lambda: bench.report("aside", [0], "-"),
        },
    )
    assert bench.main([]) == status
    said = capsys.readouterr()
    assert ("MISSED" in said.out, "1 of the targets missed: speed" in said.err) == (bool(status), bool(status))
    assert bench.main(["two"]) == 0  # a figure without a target misses none, and earlier calls are forgotten


def test_the_capture_bench_names_both_readings_of_the_authors_way(chat, monkeypatch, capsys):
    monkeypatch.setattr(bench, "N_PROMPTS", 24)
    monkeypatch.setattr(bench, "ROUNDS", 1)
    bench.bench_capture(chat)
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if "authors' way" in line)
    one = float(re.search(r"one run, one layer: (\d+\.\d+)\)", line)[1])
    assert measured(out, "capture, times faster than the authors' way") == pytest.approx(chat.n_layers * one, abs=0.1)


def test_the_capture_bench_sets_reads_beside_a_capture_that_writes_nothing(chat, monkeypatch, capsys):
    """A stand-in clock: capturing takes 100 s, with writing 1,000 s, reading 2 s, a process' first read 4 s."""

    def stand_in(chat, prompts, *, positions, cache_dir=None):
        first = all(chat is not each for each in met)
        met.append(chat)
        known = cache_dir in seen
        seen.add(cache_dir)
        clock[0] += 100 if cache_dir is None else (4 if first else 2) if known else 1000

    def seconds(work):
        began = clock[0]
        work()
        return clock[0] - began

    clock, seen, met = [0.0], set(), []
    monkeypatch.setattr(bench, "capture_activations", stand_in)
    monkeypatch.setattr(bench, "bare_forward", lambda *args: clock.__setitem__(0, clock[0] + 95))
    monkeypatch.setattr(bench, "authors_way", lambda *args: clock.__setitem__(0, clock[0] + 250))
    monkeypatch.setattr(bench, "seconds", seconds)
    bench.bench_capture(chat)
    out = capsys.readouterr().out
    assert measured(out, "reading from the cache, times faster than capturing") == 50
    assert measured(out, "the same, the first read of a process") == 25
    assert measured(out, "capture, times faster than the authors' way") == 80


def test_the_firing_bench_sets_time_beside_the_bare_product_and_measures_memory_apart(monkeypatch, capsys):
    monkeypatch.setattr(bench, "FIRING", (32, 64, 240))
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="1.5\n"))
    clock = [0.0]
    monkeypatch.setattr(bench, "bare_product", lambda *case: clock.__setitem__(0, clock[0] + 10))
    found = []

    def firing(*case):
        found.append(latent_firing(*case))
        clock[0] += 12

    def seconds(work):
        began = clock[0]
        work()
        return clock[0] - began

    monkeypatch.setattr(bench, "latent_firing", firing)
    monkeypatch.setattr(bench, "seconds", seconds)
    bench.bench_firing()
    out = capsys.readouterr().out
    assert measured(out, "firing, time over that of the bare product") == 1.2
    assert measured(out, "firing, peak memory of the whole process, GB") == 1.5
    assert "MISSED" not in out
    rates = [float(found[0].rates(name).mean()) for name in found[0].fires]
    assert 0 < max(rates) < 0.05
    assert "firing" in bench.BENCHES
