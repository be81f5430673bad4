"""Every direction at the strength that gives one refusal rate, so that how they refuse can be compared."""

from typing import Any

import pandas as pd

from ..directions.direction_set import DirectionSet
from ..model.chat_model import ChatModel
from ..steering.conditions import steering_condition
from ..steering.responses import respond


def match_refusal_rate(
    chat: ChatModel,
    controlled: pd.DataFrame,
    directions: DirectionSet,
    swept: pd.DataFrame,
    *,
    layer: int | None = None,
    target: float = 0.9,
    tolerance: float = 0.02,
    n_steps: int = 6,
    **options: Any,
) -> pd.DataFrame:
    """The rows of each direction at a strength whose refusal rate over all of `controlled` is nearest to `target`.

    `swept` holds the rows of a sweep at strengths on both sides of the target. Between the two that first enclose
    it, a strength is sought by false position, all directions in one batch a step, until the rate is within `tolerance`
    or `n_steps` are done; a direction that never encloses the target keeps its nearest strength. `options` are those of
    `respond`. Raises `ValueError` for a direction that `swept` does not hold.
    """
    missing = sorted(set(directions) - set(swept["direction"]))
    if missing:
        raise ValueError(
            f"match_refusal_rate: every direction must have been swept; got no rows of {', '.join(missing)}. Sweep it."
        )
    found = swept[swept["direction"].isin(list(directions))]
    for _ in range(n_steps):
        wanted = {name: _next_strength(refusal_rates(found, name), target, tolerance) for name in directions}
        tried = [
            steering_condition(directions, name, coefficient=strength, layer=layer)
            for name, strength in wanted.items()
            if strength is not None
        ]
        if not tried:
            break
        found = pd.concat([found, respond(chat, controlled, tried, **options)], ignore_index=True)
    nearest = {name: float((refusal_rates(found, name) - target).abs().idxmin()) for name in directions}
    return found[found["coefficient"] == found["direction"].map(nearest)].reset_index(drop=True)


def refusal_rates(rows: pd.DataFrame, direction: str) -> pd.Series:
    """The share of responses refused by coefficient, in ascending order of it."""
    own = rows[rows["direction"] == direction]
    return (own["outcome"] == "refused").groupby(own["coefficient"]).mean().sort_index()


def _next_strength(rates: pd.Series, target: float, tolerance: float) -> float | None:
    """Where the line between the strengths around the first crossing of `target` crosses it; None where none is needed."""
    above = rates[rates >= target]
    if (rates - target).abs().min() <= tolerance or above.empty or above.index[0] == rates.index[0]:
        return None
    high = float(above.index[0])
    low = float(rates.index[rates.index.get_loc(high) - 1])
    share = (target - rates[low]) / (rates[high] - rates[low])
    return low + (high - low) * float(min(max(share, 0.3), 0.7))  # the interval shrinks on either side
