"""Every direction at the strength that gives one refusal rate, so that how they refuse can be compared."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pandas as pd

from ..checks import require
from ..directions.direction_set import DirectionSet
from ..model.chat_model import ChatModel
from ..steering.conditions import steering_condition
from .rates import MAX_DEGENERATE
from .sweep import S, Sweep, sweep


def match_refusal_rate(
    chat: ChatModel,
    controlled: pd.DataFrame,
    directions: DirectionSet,
    swept: Sweep,
    *,
    target: float = 0.9,
    tolerance: float = 0.02,
    n_steps: int = 6,
    **options: Any,
) -> Sweep:
    """The responses under each direction at a strength whose refusal rate over `controlled` is nearest to `target`.

    Between the two strengths of `swept` that first enclose the target, false position proposes others until the rate is
    within `tolerance` or `n_steps` are done; a direction that never encloses the target keeps its nearest strength.
    Zero, and a strength with more than 10 % broken text, are kept only if a direction has no other. `options` are those
    of `respond`. Raises `ValueError` for a direction that was not swept.
    """
    missing = sorted(set(directions) - set(swept.rows["direction"]))
    must = "every direction must have been swept"
    require(not missing, "match_refusal_rate", must, f"no rows of {', '.join(missing)}", "Sweep them.")
    found = Sweep(swept.of_directions(directions).rows)
    for _ in range(n_steps):
        wanted = {name: _next_strength(_rates(found, name), target, tolerance) for name in directions}
        missed = {name: strength for name, strength in wanted.items() if strength is not None}
        if not missed:
            break
        tried = [steering_condition(directions, name, coefficient=strength) for name, strength in missed.items()]
        new = sweep(chat, controlled, tried, **options).rows
        found = Sweep(pd.concat([found.rows, new], ignore_index=True))
    nearest = {name: float((_intact_rates(found, name) - target).abs().idxmin()) for name in directions}
    kept = found.rows["coefficient"] == found.rows["direction"].map(nearest)
    return Sweep(found.rows[kept].reset_index(drop=True))


def common_strength(swept: S, directions: Iterable[str], target: float = 0.9) -> S:
    """The responses at the strength in gaps, among those that all `directions` have, with the rate nearest to `target`.

    Only positive strengths count, and of these the ones with at most 10 % broken text if there are any. Raises
    `ValueError` if the directions share no positive strength.
    """
    names = list(directions)
    rows = swept.of_directions(names).rows.query("gaps > 0")
    shared = Sweep(_intact(rows[rows.groupby("gaps")["direction"].transform("nunique") == len(names)], "gaps"))
    must, got = "the directions must share a positive strength in gaps", f"none for {', '.join(names)}"
    require(len(shared.rows) > 0, "common_strength", must, got, "Sweep them at the same gaps.")
    nearest = (shared.refused("gaps").sort_index() - target).abs().idxmin()
    return replace(swept, rows=shared.rows[shared.rows["gaps"] == nearest])


def _rates(swept: Sweep, direction: str) -> pd.Series:
    """The share of responses refused under a direction by coefficient, in ascending order."""
    return swept.refused(("direction", "coefficient"))[direction].sort_index()


def _intact_rates(swept: Sweep, direction: str) -> pd.Series:
    """`_rates` at the strengths other than zero at which text is intact, or at all if there are none."""
    own = swept.rows[swept.rows["direction"] == direction]
    steered = own[own["coefficient"] != 0]
    return _rates(Sweep(_intact(steered if len(steered) else own, "coefficient")), direction)


def _intact(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """The rows of the values of `by` at which at most 10 % of the text is broken, or all rows if there are none."""
    kept = rows[(rows["outcome"] == "broken").groupby(rows[by]).transform("mean") <= MAX_DEGENERATE]
    return kept if len(kept) else rows


def _next_strength(rates: pd.Series, target: float, tolerance: float) -> float | None:
    """The strength at which the line through the first two that enclose `target` crosses it, or None to stop."""
    above = rates[rates >= target]
    if (rates - target).abs().min() <= tolerance or above.empty or above.index[0] == rates.index[0]:
        return None
    high = float(above.index[0])
    low = float(rates.index[rates.index.get_loc(high) - 1])
    share = (target - rates[low]) / (rates[high] - rates[low])
    return low + (high - low) * float(min(max(share, 0.3), 0.7))  # so that the interval shrinks from either side
