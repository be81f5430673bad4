"""What the notebooks' tables say about each claim of the paper: a number, its range, and the bar that it must pass."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import hypot, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..prompts.categories import CATEGORY_IDS
from ..tradeoff.rates import MAX_DEGENERATE
from .setting import Setting

AGREES, DIFFERS, UNDECIDED = VERDICTS = ("agrees", "differs", "undecided")
N_DIRECTIONS = len(CATEGORY_IDS)
N_PAIRS = N_DIRECTIONS * (N_DIRECTIONS - 1) // 2
SAME = 0.95  # two directions count as one if the interval of their corrected cosine lies above this
ALPHA = 0.05  # threshold of adjusted p-values
MOST = 0.9  # a claim about every direction or pair holds if at least this share of them shows it
COUNTED = ("pairs", "directions")  # units of counts, whose number is a count of n
RISE = 0.1  # a direction raises refusals if the interval of its rise in overall refusal lies above this
GAIN = 0.1  # a direction decides something if this share of what can be guessed is guessed

INTERVALS, MAP, KNOB, RATES, GUESS = (
    *("03_intervals.csv", "03_map.csv", "07_knob.csv", "07_rates.csv", "08_guess.csv"),
)


@dataclass(frozen=True)
class Measure:
    """One number that bears on a claim.

    The claim's statement about it holds if the number is at least `bar` (below it if `above` is false). `low` to `high`
    is the number's 95 % interval; for a count it runs from what was shown to hold to what was not shown to fail.
    `n` is the number of things counted or compared. `doubt` says why the number cannot decide, if it cannot.
    """

    claim: int
    name: str
    unit: str
    number: float = nan
    low: float = nan
    high: float = nan
    bar: float = nan
    n: float = nan
    above: bool = True
    note: str = ""
    doubt: str = ""

    @property
    def verdict(self) -> str:
        """Agrees or differs if the whole range lies on one side of the bar; undecided if it does not, or in doubt."""
        if self.doubt or np.isnan([self.low, self.high, self.bar]).any():
            return UNDECIDED
        if self.low >= self.bar:
            return AGREES if self.above else DIFFERS
        if self.high < self.bar:
            return DIFFERS if self.above else AGREES
        return UNDECIDED


@dataclass(frozen=True)
class Tables:
    """The tables in a model's folder, and why some cannot be used."""

    folder: Path
    setting: Setting
    unusable: dict[str, str] = field(default_factory=dict)

    def read(self, file: str, *columns: str) -> pd.DataFrame:
        """The table; empty, with the reason in `unusable`, if it or one of the columns is missing or it is stale."""
        path, why = self.folder / file, ""
        frame = pd.read_csv(path, dtype={"draw": str}) if path.is_file() and path.stat().st_size else pd.DataFrame()
        missing = [name for name in columns if name not in frame]
        if frame.empty:
            why = f"no {file}: run notebook {file[:2]}"
        elif missing:
            why = f"no column {missing[0]} in {file}: run notebook {file[:2]} again"
        elif "draw" in frame and self.setting.draw:
            why = "".join(self.setting.other_draw(frame["draw"].iloc[0], file[:2]))
        if why:
            self.unusable[file] = why
        return pd.DataFrame(columns=[*columns]) if why else frame


def measure_claims(tables: Tables) -> Iterator[Measure]:
    """The measures of every claim, the first of each being its headline."""
    yield _distinct(tables)
    yield _like(tables, "two clusters", "correlation of the cosines with the two clusters")
    yield _like(tables, "published map", "correlation with the published map")
    yield _equivalent(tables)
    yield from _raising(tables)
    yield from _guesses(tables)


def _distinct(tables: Tables) -> Measure:
    pairs = tables.read(INTERVALS, "corrected", "low", "high", "p distinct")
    apart = (pairs["high"] < SAME) & (pairs["p distinct"] < ALPHA)
    same = pairs["low"] >= SAME
    note = ""
    if len(pairs):
        least, most = (pairs.loc[pairs["corrected"].astype(float).agg(end)] for end in ("idxmin", "idxmax"))
        note = f"cosines {_range(least, 'corrected')} to {_range(most, 'corrected')}"
    counts = apart.sum(), same.sum(), len(pairs), N_PAIRS
    return _count(1, "pairs of directions are distinct", "pairs", *counts, note, tables.unusable.get(INTERVALS, ""))


def _like(tables: Tables, other: str, name: str) -> Measure:
    """A correlation of maps, for which the bar is the 95th percentile of the correlations of shuffled maps."""
    frame = tables.read(MAP, "correlation", "low", "high", "p", "chance", "n")
    rows = frame[frame.iloc[:, 0] == other] if len(frame) else frame
    if rows.empty:
        return Measure(2, name, "pairs compared", doubt=tables.unusable.get(MAP, f"no row {other} in {MAP}"))
    row = rows.iloc[0]
    doubt = _fewer(int(row["n"]), N_PAIRS, "pairs")
    note = f"by chance at most {row['chance']:.2f} in 95 % of shuffles, p = {row['p']:.4f}"
    values = (row[key] for key in ("correlation", "low", "high", "chance", "n"))
    return _measure(2, name, "pairs compared", values, note=note, doubt=doubt)


def _equivalent(tables: Tables) -> Measure:
    pairs = tables.read(KNOB, "gap", "verdict")
    tables.read(RATES, "draw")
    found = pairs["verdict"].value_counts()
    apart = found.get("no common range", 0)
    note = (
        f"{found.get('different', 0)} different, {found.get('undecided', 0)} undecided, {apart} without a common range"
    )
    counts = found.get("equivalent", 0), found.get("different", 0), len(pairs), N_PAIRS
    doubt = tables.unusable.get(KNOB, tables.unusable.get(RATES, ""))
    return _count(3, "pairs of trade-off curves are equivalent", "pairs", *counts, note, doubt)


def _raising(tables: Tables) -> Iterator[Measure]:
    """How many of the eleven, and of the random controls, raise refusals at strengths that the eleven were given."""
    ends = [f"{rate}{end}" for rate in ("RR", "ORR") for end in ("", " low", " high")]
    rates = tables.read(RATES, "direction", "gaps", "intervention", "degenerate", *ends)
    doubt = tables.unusable.get(RATES, "")
    steered = rates[rates["intervention"] == "steered"]
    own = steered["direction"].isin(CATEGORY_IDS)
    usual = steered[steered["gaps"] <= steered.loc[own, "gaps"].max()]
    rises = pd.DataFrame({name: _rise(rows) for name, rows in usual.groupby("direction")}).T.reindex(
        columns=["rise", "low", "high"]
    )
    up, flat = rises["low"] >= RISE, rises["high"] < RISE
    eleven = rises.index.isin(CATEGORY_IDS)
    note = ""
    if eleven.any():
        to = rises.loc[eleven, "rise"]
        note = f"the overall refusal rate changes by {to.min():+.2f} to {to.max():+.2f} at each one's best strength"
    counts = up[eleven].sum(), flat[eleven].sum(), int(eleven.sum()), N_DIRECTIONS
    yield _count(3, "directions raise refusals", "directions", *counts, note, doubt)
    kinds = {kind: rises.index.str.startswith(kind) for kind in ("random", "covariance")} if len(rises) else {}
    random = kinds.get("random", eleven)
    n = int(random.sum())
    note = (
        f"of {kinds['covariance'].sum()} from the states' covariance {up[kinds['covariance']].sum()}" if kinds else ""
    )
    doubt = doubt or ("" if n else "no random directions in 07_rates.csv")
    low, high = up[random].sum(), n - flat[random].sum()
    name = "random directions raise refusals"
    yield _measure(3, name, "directions", (low, low, high, n / 2, n), above=False, note=note, doubt=doubt)


def _rise(rows: pd.DataFrame) -> dict[str, float]:
    """The highest overall refusal rate at a positive strength with intact text, minus that without steering.

    Its interval combines those of RR and ORR (Newcombe 1998), and takes the unsteered rate as given: the controlled set
    is balanced by it.
    """
    overall = (rows["RR"] + rows["ORR"]) / 2
    start = overall[rows["gaps"] == 0].mean()
    usable = (rows["gaps"] > 0) & (rows["degenerate"] <= MAX_DEGENERATE)
    if not usable.any():
        return {"rise": nan, "low": nan, "high": nan}
    best = rows.loc[overall[usable].idxmax()]
    rise = (best["RR"] + best["ORR"]) / 2 - start
    down, up = (hypot(*(best[rate] - best[f"{rate} {end}"] for rate in ("RR", "ORR"))) / 2 for end in ("low", "high"))
    return {"rise": rise, "low": rise - down, "high": rise + up}


def _guesses(tables: Tables) -> Iterator[Measure]:
    """Whether a refusal's text names its direction, and whether it does so more than the bare fact of refusing."""
    frame = tables.read(GUESS, "accuracy", "low", "high", "chance", "n", "cramer", "null cramer")
    name, more = "share of refusals whose text names the direction", "what text tells minus what yes or no tells"
    rows = frame.set_index(frame.columns[1]) if len(frame) else frame
    needed = [
        f"{what}, same strength" for what in ("text of a refusal", "refused or not", "how: its styles", "whether")
    ]
    absent = [each for each in needed if each not in rows.index]
    steered = tables.read(RATES, "direction")["direction"]
    n_directions = steered[steered.isin(CATEGORY_IDS)].nunique()
    if absent:
        doubt = tables.unusable.get(GUESS, f"no row {absent[0]!r} in {GUESS}")
        yield Measure(4, name, "refusals", doubt=doubt)
        yield Measure(4, more, "refusals", doubt=doubt)
        return
    text, outcome, how, whether = (rows.loc[each] for each in needed)
    doubt = _fewer(n_directions, N_DIRECTIONS, "directions")
    note = "Cramer's V " + ", ".join(
        f"{what} {row['cramer']:.2f} (chance {row['null cramer']:.2f})"
        for what, row in (("how", how), ("whether", whether))
    )
    bar = text["chance"] + GAIN * (1 - text["chance"])
    values = (text["accuracy"], text["low"], text["high"], bar, text["n"])
    yield _measure(4, name, "refusals", values, note=note, doubt=doubt)
    gains = _gain(text, 1.0), _gain(outcome, 2 / max(n_directions, 2))
    number = gains[0][0] - gains[1][0]
    low = number - hypot(gains[0][0] - gains[0][1], gains[1][2] - gains[1][0])
    high = number + hypot(gains[0][2] - gains[0][0], gains[1][0] - gains[1][1])
    note = f"how {gains[0][0]:.2f}, whether {gains[1][0]:.2f}"
    yield Measure(4, more, "refusals", number, low, high, 0.0, float(text["n"]), note=note, doubt=doubt)


def _gain(guess: pd.Series, most: float) -> tuple[float, ...]:
    """Accuracy and its interval on a scale from 0, chance, to 1, the `most` that can be guessed from the evidence."""
    return tuple((guess[end] - guess["chance"]) / (most - guess["chance"]) for end in ("accuracy", "low", "high"))


def _measure(claim: int, name: str, unit: str, values: Iterable[Any], **rest: Any) -> Measure:
    number, low, high, bar, n = map(float, values)
    return Measure(claim, name, unit, number, low, high, bar, n, **rest)


def _count(
    claim: int, name: str, unit: str, shown: Any, refuted: Any, n_found: int, n_all: int, note: str, doubt: str
) -> Measure:
    """A count with its range; what was not measured could still turn out either way."""
    missing = _fewer(n_found, n_all, unit)
    if not n_found:
        return Measure(claim, name, unit, doubt=doubt or missing)
    values = map(float, (shown, shown, n_all - refuted, MOST * n_all, n_all))
    return _measure(claim, name, unit, values, note="; ".join(filter(None, (missing, note))), doubt=doubt)


def _fewer(n_found: int, n_all: int, unit: str) -> str:
    return "" if n_found >= n_all else f"{n_found} of {n_all} {unit}"


def _range(row: pd.Series, name: str) -> str:
    return f"{row[name]:.2f} ({row['low']:.2f} to {row['high']:.2f})"
