"""Directions at equal cost: the strength at which each spends the same KL divergence, and what it buys there.

Methods find directions of different lengths at different places, so neither coefficients nor gaps compare them. The
cost does: how much the first token of responses to benign prompts changes, in nats. An addition can spend any budget;
an ablation ends when nothing is left, so at its budget as much is removed as it affords.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from ..checks import require
from ..directions.direction_set import DirectionSet
from ..model.chat_model import ChatModel
from ..steering.conditions import Condition, ablation_condition, steering_condition
from ..steering.first_tokens import kl_spent
from ..steering.responses import NOT_JUDGED, respond
from .rates import rate_table

Dial = Callable[[float], Condition]  # an intervention at a strength
BUDGETS = (0.05, 0.1, 0.2)  # nats
FIRST = tuple(2.0**power for power in range(-5, 5))  # strengths that are tried first
TOLERANCE = 0.02  # a strength is found if its cost is this near to the budget, as a share of it
LARGEST = 4096.0  # a dial that has not spent a budget at this strength never does
N_STEPS = 9


@dataclass(frozen=True, eq=False)
class EqualCost:
    """What interventions buy at equal cost.

    `strengths` has columns name, budget, strength and nats, see `strengths_at_cost`. `rows` are
    the judged responses at the strengths that are known, with columns name and budget.
    """

    strengths: pd.DataFrame = field(repr=False)
    rows: pd.DataFrame = field(repr=False)

    def table(self) -> pd.DataFrame:
        """Strength, nats, RR, ORR and degenerate share by name and budget, the rates with their Wilson intervals."""
        rates = rate_table(self.rows, ("name", "budget"))
        shown = [rate + end for rate in ("RR", "ORR", "degenerate") for end in ("", " low", " high")]
        return self.strengths.set_index(["name", "budget"]).join(rates[[*shown, NOT_JUDGED]])


def addition_dial(directions: DirectionSet, name: str, *, subtract: bool = False, **options: Any) -> Dial:
    """Adding the direction `name`, or subtracting it, at a strength in gaps.

    A gap that is unknown or zero counts as 1, so that the strength is a coefficient. `options` are those of `Addition`.
    """
    gap = directions.gap(name)
    unit = (gap if gap > 0 else 1.0) * (-1 if subtract else 1)
    return lambda strength: steering_condition(directions, name, coefficient=strength * unit, **options)


def ablation_dial(directions: DirectionSet, *names: str) -> Dial:
    """Removing a share of the span of the directions `names`, or of all: it ends at a strength of 1."""
    return lambda share: ablation_condition(directions, *(names or directions.names), share=share)


@dataclass(frozen=True, eq=False)
class MethodDials:
    """How to add and how to ablate what each method found, by name."""

    added: Mapping[str, Dial] = field(repr=False)
    ablated: Mapping[str, Dial] = field(repr=False)

    @classmethod
    def of(cls, found: Mapping[str, DirectionSet], controls: DirectionSet | None = None) -> "MethodDials":
        """The first direction of every set in `found` is added, the span of all ablated; each control by itself."""
        added = {name: addition_dial(own, own.names[0]) for name, own in found.items()}
        ablated = {name: ablation_dial(own) for name, own in found.items()}
        if controls is not None:
            added |= {name: addition_dial(controls, name) for name in controls}
            ablated |= {name: ablation_dial(controls, name) for name in controls}
        return cls(added, ablated)

    def ablations(self, names: Iterable[str]) -> dict[str, Condition]:
        """The full ablation of each of `names`."""
        return {name: self.ablated[name](1.0) for name in names}


def strengths_at_cost(
    chat: ChatModel,
    dials: Mapping[str, Dial],
    prompts: Sequence[str],
    budgets: Sequence[float] = BUDGETS,
    *,
    most: float | None = None,
) -> pd.DataFrame:
    """The smallest strength at which each dial spends each budget, in nats, on average over `prompts`.

    Columns name, budget, strength and nats (what is spent there). Strengths from 1/32 to 16 are tried first, larger
    ones if needed; between the first two that enclose a budget, false position in logarithms proposes others until the
    cost is within 2 % of the budget. `most`: where the dials end, such as 1 for ablations; one that has not spent a
    budget there stays there. Without an end, strength and nats are NaN if none up to 4096 encloses the budget. Raises
    `ValueError` for a budget that is not positive.
    """
    must, todo = "budgets must be positive numbers of nats", "Pass, for example, (0.05, 0.1, 0.2)."
    require(all(budget > 0 for budget in budgets), "strengths_at_cost", must, tuple(budgets), todo)
    tried = {name: pd.Series(0.0, index=[0.0]) for name in dials}
    end = LARGEST if most is None else most
    first = [strength for strength in FIRST if strength < end]
    _measure(chat, dials, prompts, {name: first + [end] * (most is not None) for name in dials}, tried)
    for _ in range(N_STEPS):
        proposed = {name: [_next(tried[name], budget, end) for budget in budgets] for name in dials}
        wanted = {name: sorted({each for each in found if each is not None}) for name, found in proposed.items()}
        if not any(wanted.values()):
            break
        _measure(chat, dials, prompts, wanted, tried)
    rows = [(name, budget, *_nearest(tried[name], budget, most)) for name in dials for budget in budgets]
    return pd.DataFrame(rows, columns=["name", "budget", "strength", "nats"])


def equal_cost(
    chat: ChatModel,
    controlled: pd.DataFrame,
    dials: Mapping[str, Dial],
    prompts: Sequence[str],
    budgets: Sequence[float] = BUDGETS,
    *,
    most: float | None = None,
    **options: Any,
) -> EqualCost:
    """The judged responses to a controlled set under every dial at the strengths of `strengths_at_cost`.

    `prompts` are the benign prompts on which the cost is measured; they should not be in the controlled set. `options`
    are those of `respond`. Raises `ValueError` if no dial ever spends a budget, and as `strengths_at_cost` does.
    """
    strengths = strengths_at_cost(chat, dials, prompts, budgets, most=most)
    found = strengths.dropna()
    must, todo = "at least one dial must spend a budget", "Use smaller budgets."
    require(len(found) > 0, "equal_cost", must, f"none of {len(dials)} that spends {min(budgets)} nats", todo)
    label = "{} at {:g} nats".format
    conditions = [
        replace(dials[row.name](row.strength), name=label(row.name, row.budget), direction=row.name)
        for row in found.itertuples(index=False)
    ]
    rows = respond(chat, controlled, conditions, **options)
    of = {each.name: each_row for each, each_row in zip(conditions, found.itertuples(index=False), strict=True)}
    told = rows["condition"].map(of)
    named = rows.assign(name=[row.name for row in told], budget=[row.budget for row in told])
    return EqualCost(strengths, named)


def _measure(
    chat: ChatModel,
    dials: Mapping[str, Dial],
    prompts: Sequence[str],
    wanted: Mapping[str, Sequence[float]],
    tried: dict[str, pd.Series],
) -> None:
    """Add the costs of the wanted strengths to `tried`, all in the same batches."""
    points = [(name, strength) for name, strengths in wanted.items() for strength in strengths]
    nats = kl_spent(chat, prompts, [dials[name](strength) for name, strength in points])
    for (name, strength), spent in zip(points, nats.tolist(), strict=True):
        tried[name][strength] = spent
    for name in wanted:
        tried[name] = tried[name].sort_index()


def _enclosing(tried: pd.Series, budget: float) -> tuple[float, float] | None:
    """The first two neighbouring strengths of which the second spends at least the budget."""
    above = np.flatnonzero(tried.to_numpy() >= budget)
    return (float(tried.index[above[0] - 1]), float(tried.index[above[0]])) if len(above) else None


def _next(tried: pd.Series, budget: float, end: float) -> float | None:
    """The strength to try next; None if one is near enough or none can enclose the budget."""
    around, last = _enclosing(tried, budget), float(tried.index[-1])
    if around is None:
        return 4 * last if last < end else None
    if abs(_nearest(tried, budget, None)[1] / budget - 1) <= TOLERANCE:
        return None
    low, high = around
    if tried[low] <= 0:
        return high / 2 if low == 0 else (low + high) / 2
    share = np.log(budget / tried[low]) / np.log(tried[high] / tried[low])
    return float(low * (high / low) ** float(np.clip(share, 0.05, 0.95)))


def _nearest(tried: pd.Series, budget: float, most: float | None) -> tuple[float, float]:
    """(strength, nats) of the end of the enclosing interval that is nearer to the budget; without one, of `most`."""
    around = _enclosing(tried, budget)
    if around is None:
        return (float("nan"), float("nan")) if most is None else (most, float(tried[most]))
    strength = min((each for each in around if each > 0), key=lambda each: abs(tried[each] - budget))
    return strength, float(tried[strength])
