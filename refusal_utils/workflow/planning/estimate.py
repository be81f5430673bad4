"""The plan of a run: rows, tokens and minutes of every notebook, the total with several at once, and the memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from ...model.names import BUNDLED, BUNDLED_TOKENS
from ...notebooks import find_notebooks, read_title
from ..settings import Settings
from ..side_by_side import FILLS_CACHE, needs_cache_first, start_order
from .calibration import Rates
from .counts import count_rows_of
from .scene import Loop, ModelFacts, Scene

ANALYSES = Path(__file__).with_name("analyses.csv")
READS = ("capture_activations", "component_shares", "token_states", "states_under")  # loops that edit nothing
_SIZES = (("quick", 300), ("standard", 1000))  # sizes that the analyses were measured at, and their N_BOOTSTRAP


@dataclass(frozen=True)
class Plan:
    """What a run will do and how long it takes.

    `loops`: by notebook number; `seconds`: of each notebook; `n_at_once`: notebooks that run at the same time.
    """

    loops: Mapping[str, Sequence[Loop]] = field(repr=False)
    seconds: Mapping[str, float]
    rates: Rates
    n_at_once: int = 1

    @property
    def minutes(self) -> float:
        """The time from the first notebook to the last."""
        return finish(self.seconds, _needs(tuple(self.seconds)), self.n_at_once) / 60

    @property
    def gigabytes(self) -> float:
        """The memory of all notebooks that run at the same time, by the peak of the calibration."""
        return self.rates.peak * self.n_at_once

    def by_notebook(self) -> pd.DataFrame:
        """A row per notebook: responses, their tokens, other rows, whether all counts are exact, and minutes."""
        rows = {}
        for number, loops in self.loops.items():
            said = [loop for loop in loops if loop.new_tokens]
            rows[_name(number)] = {
                "responses": sum(loop.rows for loop in said),
                "tokens": round(sum(loop.rows * self.rates.tokens(loop.new_tokens) for loop in said)),
                "other rows": sum(loop.rows for loop in loops if not loop.new_tokens),
                "exact": all(loop.is_exact for loop in loops),
                "minutes": self.seconds[number] / 60,
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("notebook")

    def by_loop(self) -> pd.DataFrame:
        """A row per loop: notebook, loop, prompts, conditions, tokens of a response, rows and minutes."""
        rows = [
            (_name(number), each.name, each.prompts, each.conditions, each.new_tokens, each.rows, cost / 60)
            for number, loops in self.loops.items()
            for each, cost in ((loop, loop_seconds(loop, self.rates)) for loop in loops)
        ]
        columns = ["notebook", "loop", "prompts", "conditions", "up to tokens", "rows", "minutes"]
        return pd.DataFrame(rows, columns=columns).astype({"minutes": float})

    def __str__(self) -> str:
        """The plan as text: the largest loops, a line per notebook, and the total."""
        large = self.by_loop().nlargest(8, "minutes").round({"conditions": 1, "minutes": 1})
        table = self.by_notebook().round({"minutes": 1})
        total = f"{self.minutes:.0f} min in all with {self.n_at_once} at once; about {self.gigabytes:.1f} GB of memory"
        told = "The largest loops (prompts x conditions x tokens):"
        return "\n\n".join([f"{told}\n{large.to_string(index=False)}", table.to_string(), total])


def make_plan(settings: Settings, numbers: Sequence[str], rates: Rates, model: ModelFacts, n_at_once: int = 1) -> Plan:
    """The plan of a run of the notebooks with these numbers, from an empty cache."""
    scene = Scene.of(settings, model)
    loops = count_rows_of(scene, numbers)
    seconds = {
        number: rates.start + rates.load * (number not in ("01", "08"))
        + sum(loop_seconds(loop, rates) for loop in own)
        + analysis_seconds(number, scene.values, rates)
        for number, own in loops.items()
    }  # fmt: skip
    is_large = settings.MODEL not in (BUNDLED, BUNDLED_TOKENS)
    if is_large and FILLS_CACHE in seconds and n_at_once > 1:  # it runs with all cores
        seconds[FILLS_CACHE] /= n_at_once
    return Plan(loops, seconds, rates, min(n_at_once, max(1, len(numbers))))


def loop_seconds(loop: Loop, rates: Rates) -> float:
    """The seconds of a loop: its passes over prompts, and the tokens of its responses."""
    each = rates.capture if loop.name in READS else rates.steered
    return loop.passes * each + loop.rows * rates.tokens(loop.new_tokens) * rates.token * bool(loop.new_tokens)


def analysis_seconds(number: str, values: Mapping[str, Any], rates: Rates) -> float:
    """The seconds that a notebook spends outside the model, scaled by how fast this machine imports packages.

    They were measured at two sizes, and are on the line between in the number of bootstrap draws.
    """
    row = _analyses().loc[number]
    (low, few), (high, many) = _SIZES
    share = (values["N_BOOTSTRAP"] - few) / (many - few)
    speed = rates.start / _analyses()["start"].iloc[0]
    return max(0.0, float(row[low] + share * (row[high] - row[low]))) * speed


def finish(seconds: Mapping[str, float], needs: Mapping[str, Sequence[str]], n_at_once: int) -> float:
    """When the last notebook ends, if each starts as soon as those that it needs have ended, `n_at_once` at a time.

    Of those that can start, the first in `start_order` does, as in `run_side_by_side`.

    >>> finish({"a": 2, "b": 3, "c": 1}, {"a": (), "b": (), "c": ("a",)}, 2)
    3.0
    """
    order = start_order({name: needs[name] for name in seconds}, n_at_once)
    ends: dict[str, float] = {}
    running: dict[str, float] = {}
    now = 0.0
    while len(ends) < len(seconds):
        ready = [name for name in order if name not in running and name not in ends and {*needs[name]} <= ends.keys()]
        for name in ready[: n_at_once - len(running)]:
            running[name] = now + seconds[name]
        name = min(running, key=lambda each: running[each])
        now = ends[name] = running.pop(name)
    return now


def _needs(numbers: Sequence[str]) -> dict[str, list[str]]:
    paths = {path.name[:2]: path for path in find_notebooks(numbers)} if numbers else {}
    needs = {number: [each for each in read_title(path).earlier if each in numbers] for number, path in paths.items()}
    return {number: [each for each in own if each in numbers] for number, own in needs_cache_first(needs).items()}


def _name(number: str) -> str:
    return find_notebooks([number])[0].stem


@cache
def _analyses() -> pd.DataFrame:
    return pd.read_csv(ANALYSES, dtype={"notebook": str}).set_index("notebook")
