"""Run a sweep over models on an engine, count what came back, and write one file of judged rows per model."""

import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..checks import invalid, require, require_folder
from ..judging.judgement import Judge
from ..model.artifacts import load_rows, save_rows
from ..model.names import claim_folder
from ..steering.responses import judge_rows
from ..tradeoff.rates import rate_table
from .engines import Engine, Options
from .forecast import Forecast
from .sweep_plan import Receipt, SweepPlan

FILE, RATES = "sweep.jsonl.gz", "sweep_rates.csv"
CONDITION = ["condition", "direction", "coefficient"]
_EVERY = 1.0, 30.0  # seconds between two lines of progress: on a terminal, elsewhere


def sweep_models(
    plan: SweepPlan, engine: Engine, options: Options, judge: Judge, say: Callable[[str], None] = print
) -> list[Path]:
    """The files of judged rows, one for each model (`Sweep.load` reads them), after computing what is missing.

    Each row has the columns of a `Sweep`. What is finished stays on disk whatever happens, and the same call goes on
    from there. Raises `ValueError` as the engine does and, after everything else is written, if a block has failed: it
    names the failed blocks with their reasons.
    """
    require_folder("sweep", plan.out)
    plan.blocks.mkdir(parents=True, exist_ok=True)
    receipts = _collected(plan, engine, options)
    paths = []
    for model in plan.models:
        own = sorted((each for each in receipts if each.task.model == model), key=lambda each: each.task.number)
        finished = [each for each in own if not each.error]
        if finished:
            paths.append(_write(plan, model, finished, judge, say))
    _require_all(receipts)
    return paths


def _collected(plan: SweepPlan, engine: Engine, options: Options) -> list[Receipt]:
    """One receipt for every task, while showing how far the sweep is."""
    tasks, receipts = plan.tasks(), list[Receipt]()
    forecast = Forecast(dict.fromkeys(plan.models, plan.n_blocks))
    line = _Line(sys.stderr)
    running = engine.run(plan, tasks, options)
    try:
        for receipt in running:
            receipts.append(receipt)
            forecast.add(receipt)
            line.show(forecast.text(), last=len(receipts) == len(tasks))
    finally:
        running.close()  # type: ignore[attr-defined]  # ends the engine's processes at once, also after Ctrl-C
        line.end()
    lacking = set(tasks) - {each.task for each in receipts}
    assert not lacking, f"the engine {engine.name} returned nothing for {lacking}"
    return receipts


def _write(plan: SweepPlan, model: str, finished: Sequence[Receipt], judge: Judge, say: Callable[[str], None]) -> Path:
    """Write the judged rows and the rates of a model, and say how many there are of each condition."""
    found = [load_rows(plan.blocks / each.file) for each in finished]
    rows, n = _counted(model, [rows for rows, _ in found], sum(len(plan.ids(each.task.number)) for each in finished))
    judged = judge_rows(rows.merge(plan.swept, on="id", how="left", validate="many_to_one"), judge)
    folder = claim_folder(model, plan.out)
    devices = sorted({each.device for each in finished})
    notes = {**found[0][1], "device": devices, "n_prompts": n, "n_prompts_planned": len(plan.swept)}
    path = save_rows(folder / FILE, judged, {name: value for name, value in notes.items() if name != "n_rows"})
    rate_table(judged).round(4).to_csv(folder / RATES)
    n_conditions = len(rows) // n
    say(f"{model}: {n_conditions} conditions x {n} prompts = {len(rows):,} rows, {os.path.relpath(path)}")
    if len(devices) > 1:
        say(f"{model}: computed on {len(devices)} kinds of device, whose last bits differ: {'; '.join(devices)}")
    return path


def _counted(model: str, parts: Sequence[pd.DataFrame], n: int) -> tuple[pd.DataFrame, int]:
    """(the rows of all blocks, condition by condition; `n`), if every condition has each of the `n` prompts once."""
    rows = pd.concat(parts, ignore_index=True)
    order = rows[CONDITION].drop_duplicates().reset_index(drop=True).assign(place=lambda each: each.index)
    rows = rows.merge(order, on=CONDITION, how="left").sort_values("place", kind="stable")
    counts, twice = rows["place"].value_counts(), rows.duplicated(["place", "id"])
    wrong = counts[counts != n]
    got = f"{len(wrong)} conditions of {model} with {sorted(set(wrong))} rows, {int(twice.sum())} rows twice"
    is_whole = wrong.empty and not twice.any()
    require(is_whole, "sweep", f"every condition must have {n} rows", got, "Remove the blocks and run it again.")
    return rows.drop(columns="place").reset_index(drop=True), n


def _require_all(receipts: Sequence[Receipt]) -> None:
    """Raise `ValueError` that names all failed blocks, those with the same reason together."""
    failed: dict[tuple[str, str], list[int]] = defaultdict(list)
    for each in receipts:
        if each.error:
            failed[each.task.model, each.error].append(each.task.number)
    if failed:
        named = "; ".join(
            f"{model}, block {', '.join(map(str, sorted(own)))}: {why}" for (model, why), own in failed.items()
        )
        n, todo = sum(map(len, failed.values())), "All others are kept: the same command tries these again."
        raise invalid("sweep", f"all {len(receipts)} blocks must be computed", f"{n} failed ({named})", todo)


class _Line:
    """Progress on a stream: one line that is updated on a terminal, elsewhere a line every half minute."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.on_terminal = stream, stream.isatty()
        self._shown = float("-inf")

    def show(self, text: str, last: bool) -> None:
        """Show `text`, unless another was shown a moment ago and more will follow."""
        if last or time.monotonic() - self._shown >= _EVERY[not self.on_terminal]:
            self._shown = time.monotonic()
            self.stream.write(f"\r\x1b[K{text}" if self.on_terminal else f"{text}\n")
            self.stream.flush()

    def end(self) -> None:
        """Leave the line of a terminal."""
        if self.on_terminal and self._shown > 0:
            self.stream.write("\n")
