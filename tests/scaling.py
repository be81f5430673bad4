"""How the time of a sweep grows: `python -m tests.bench scaling [MODEL]`.

Measured: against prompts x conditions, and with one and two workers. On paper: many models on several GPUs, from the
sweep that was measured on one GPU (docs/models.md), with the assumptions printed.
"""

import heapq
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
import torch

from refusal_utils.bundled.check import train_directions
from refusal_utils.model.chat_model import ChatModel, load_chat_model
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.steering.conditions import Condition
from refusal_utils.steering.generation import generate
from refusal_utils.tradeoff.sweep import sweep_conditions

PROMPTS, CONDITIONS, ROUNDS, N_NEW = (64, 128, 256), (11, 22, 44), 3, 32
READY = "ready\n"
LINEAR = 0.05  # how far times may be from a straight line, as a share
# Measured on an H100: 44 conditions x 200 prompts x 50 tokens of a model of Gemma-2-9b's shape in bfloat16.
MEASURED_SECONDS, MEASURED_ROWS, MEASURED_BILLIONS = 117.0, 44 * 200, 9.24
MODELS_ON_PAPER = (0.5, 1.5, 2.6, 3.1, 3.2, 7.0, 7.6, 8.0, 8.0, 9.2, 9.2, 12.2, 14.8)  # billions of parameters
N_GPUS, ROWS_PER_MODEL, SECONDS_TO_LOAD, BLOCK = 8, 200 * (12 * 6 + 10 * 3), 60.0, 32 * 102


def asked(chat: ChatModel, n_prompts: int, n_conditions: int) -> tuple[list[str], list[Condition]]:
    """Prompts and conditions of a sweep along the eleven directions, all of which act from the same layer on."""
    whole = sweep_conditions(train_directions(chat, chat.decision_layer, chat.decision_pos), gaps=(0.25, 0.5, 0.75, 1))
    return list(load_prompts(split="eval").sample(n_prompts, random_state=0)["text"]), whole[:n_conditions]


def seconds_of(chat: ChatModel, n_prompts: int, n_conditions: int) -> float:
    prompts, conditions = asked(chat, n_prompts, n_conditions)
    began = time.perf_counter()
    generate(chat, prompts, conditions, max_new_tokens=N_NEW)
    return time.perf_counter() - began


def measure_sizes(
    chat: ChatModel, prompts: Sequence[int] = PROMPTS, conditions: Sequence[int] = CONDITIONS, rounds: int = ROUNDS
) -> pd.DataFrame:
    """The median seconds at each size, the rows a second, and how far the time is from a line through all sizes."""
    sizes = [*product(prompts, conditions)]
    seconds_of(chat, prompts[0], conditions[0])  # allocates
    times = np.array([[seconds_of(chat, *size) for size in sizes] for _ in range(rounds)])
    table = pd.DataFrame(sizes, columns=["prompts", "conditions"]).assign(seconds=np.median(times, axis=0))
    return with_line(table)


def with_line(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with rows, rows a second, and `off line`: seconds over those of the line of least relative error."""
    rows, took = (table["prompts"] * table["conditions"]).to_numpy(float), table["seconds"].to_numpy(float)
    design = np.stack([np.ones_like(rows), rows], axis=1) / took[:, None]
    line, *_ = np.linalg.lstsq(design, np.ones_like(took), rcond=None)
    fitted = line[0] + line[1] * rows
    return table.assign(rows=rows.astype(int), **{"rows a second": rows / took, "off line": took / fitted - 1})


def measure_workers(model: str, n_prompts: int = 128, n_conditions: int = 22) -> pd.DataFrame:
    """Seconds of one sweep by one and by two processes of one thread each, which share the prompts, after loading."""
    rows = []
    for n_workers in (1, 2):
        code = "import sys; from tests.scaling import work; work(sys.argv[1], *map(int, sys.argv[2:]))"
        given = [sys.executable, "-c", code, model, str(n_prompts // n_workers), str(n_conditions)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started = [subprocess.Popen(given, **pipes) for _ in range(n_workers)]
        for process in started:
            while (line := process.stdout.readline()) != READY:
                assert line, "a worker did not start"
        began = time.perf_counter()
        for process in started:
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in started:
            process.communicate()
        rows.append((n_workers, time.perf_counter() - began))
    table = pd.DataFrame(rows, columns=["workers", "seconds"])
    return table.assign(**{"times faster": table["seconds"].iloc[0] / table["seconds"]})


def work(model: str, n_prompts: int, n_conditions: int) -> None:
    """Generate a worker's share once a line comes; print `READY` after loading and a first short pass."""
    torch.set_num_threads(1)
    chat = load_chat_model(model, device="cpu")
    seconds_of(chat, 8, 2)
    print(READY, end="", flush=True)
    sys.stdin.readline()
    seconds_of(chat, n_prompts, n_conditions)


def on_paper(
    billions: Sequence[float] = MODELS_ON_PAPER,
    n_gpus: int = N_GPUS,
    rows: int = ROWS_PER_MODEL,
    load: float = SECONDS_TO_LOAD,
) -> dict[str, float]:
    """Hours of a sweep of several models: on one GPU, on several by whole models, and on several in blocks.

    The seconds of a row are in proportion to the parameters. By blocks, a GPU that is free takes a block of the model
    with the most left, and loads the model first if it is another.
    """
    per_row = {at: MEASURED_SECONDS / MEASURED_ROWS * size / MEASURED_BILLIONS for at, size in enumerate(billions)}
    whole = [load + rows * per_row[at] for at in per_row]
    ends = [0.0] * n_gpus
    for took in sorted(whole, reverse=True):  # the longest first, to the GPU that is free first
        heapq.heappush(ends, heapq.heappop(ends) + took)
    return {
        "one GPU": sum(whole) / 3600,
        f"{n_gpus} GPUs, whole models": max(ends) / 3600,
        f"{n_gpus} GPUs, blocks": _in_blocks(per_row, n_gpus, rows, load) / 3600,
    }


def _in_blocks(per_row: dict[int, float], n_gpus: int, rows: int, load: float) -> float:
    left, free = dict.fromkeys(per_row, rows), [(0.0, gpu) for gpu in range(n_gpus)]
    loaded: dict[int, int] = {}
    last = 0.0
    while any(left.values()):
        now, gpu = heapq.heappop(free)
        own = loaded.get(gpu)
        most = max(left, key=lambda at: left[at] * per_row[at])
        at = own if own is not None and left[own] else most
        now += load * (at != own)
        loaded[gpu], n = at, min(BLOCK, left[at])
        left[at] -= n
        last = max(last, now + n * per_row[at])
        heapq.heappush(free, (now + n * per_row[at], gpu))
    return last


def main(model: str = "bundled") -> list[tuple[str, list[float], str, bool]]:
    """Print the three tables; (figure, ratios, target, whether it is met) of what has a target."""
    chat = load_chat_model(model, device="cpu")
    sizes = measure_sizes(chat)
    print(f"{chat.describe()}, {torch.get_num_threads()} threads, up to {N_NEW} tokens\n{sizes.round(3).to_string()}")
    print(measure_workers(model).round(2).to_string(index=False))
    per_row = 1000 * MEASURED_SECONDS / MEASURED_ROWS
    print(
        f"On paper: {len(MODELS_ON_PAPER)} models of {min(MODELS_ON_PAPER)} to {max(MODELS_ON_PAPER)} billion "
        f"parameters, {ROWS_PER_MODEL:,} rows each, {per_row:.1f} ms a row at {MEASURED_BILLIONS} billion "
        f"and in proportion at other sizes, {SECONDS_TO_LOAD:.0f} s to load a model on a GPU"
    )
    columns = {f"{times * ROWS_PER_MODEL:,} rows": on_paper(rows=times * ROWS_PER_MODEL) for times in (1, 10)}
    print(pd.DataFrame(columns).round(2).to_string())
    off = sizes["off line"].abs().tolist()
    return [("time against prompts x conditions, share off a line", off, f"<= {LINEAR}", max(off) <= LINEAR)]
