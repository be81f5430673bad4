"""Directions at equal cost: the strength at which each spends the same KL divergence, and what it buys there.

Methods find directions of different lengths at different places, so neither coefficients nor gaps compare them. The cost
does: how much the first token of responses to benign prompts changes, in nats.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go

from ..checks import require
from ..directions.direction_set import DirectionSet
from ..model.chat_model import ChatModel
from ..plotting.look import HEIGHT, WIDTH
from ..plotting.tradeoff import AXES
from ..steering.conditions import Condition, steering_condition
from ..steering.first_tokens import kl_spent
from ..steering.responses import respond
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

    `strengths` has columns name, budget, strength and nats; a strength is NaN if the budget is never spent. `rows` are
    the judged responses at the others, with columns name and budget.
    """

    strengths: pd.DataFrame = field(repr=False)
    rows: pd.DataFrame = field(repr=False)

    def table(self) -> pd.DataFrame:
        """Strength, nats, RR, ORR and degenerate share by name and budget, the rates with their Wilson intervals."""
        rates = rate_table(self.rows, ("name", "budget"))
        shown = [rate + end for rate in ("RR", "ORR", "degenerate") for end in ("", " low", " high")]
        return self.strengths.set_index(["name", "budget"]).join(rates[shown])

    def figure(self, *, title: str) -> go.Figure:
        """Refusal against over-refusal, a line per name through its budgets; whiskers are 95 % intervals."""
        points = self.table().reset_index().dropna(subset=["RR", "ORR"])
        for rate in ("RR", "ORR"):
            points[f"{rate} up"] = (points[f"{rate} high"] - points[rate]).clip(lower=0)
            points[f"{rate} down"] = (points[rate] - points[f"{rate} low"]).clip(lower=0)
        figure = px.line(
            points,
            x="ORR",
            y="RR",
            color="name",
            symbol="name",
            text="budget",
            error_x="ORR up",
            error_x_minus="ORR down",
            error_y="RR up",
            error_y_minus="RR down",
            labels=AXES,
            title=title,
            template="refusal",
            width=WIDTH,
            height=HEIGHT + 120,
            color_discrete_sequence=px.colors.qualitative.Dark24,
        )
        figure.update_traces(mode="lines+markers", marker={"size": 9}, error_x_thickness=0.8, error_y_thickness=0.8)
        return figure.update_xaxes(range=[-0.03, 1.03]).update_yaxes(range=[-0.03, 1.03])


def addition_dial(directions: DirectionSet, name: str, *, subtract: bool = False, **options: Any) -> Dial:
    """Adding the direction `name`, or subtracting it, at a strength in gaps.

    A gap that is unknown or zero counts as 1, so that the strength is a coefficient. `options` are those of `Addition`.
    """
    gap = directions.gap(name)
    unit = (gap if gap > 0 else 1.0) * (-1 if subtract else 1)
    return lambda strength: steering_condition(directions, name, coefficient=strength * unit, **options)


def strengths_at_cost(
    chat: ChatModel, dials: Mapping[str, Dial], prompts: Sequence[str], budgets: Sequence[float] = BUDGETS
) -> pd.DataFrame:
    """The smallest strength at which each dial spends each budget, in nats, on average over `prompts`.

    Columns name, budget, strength and nats (what is spent there). Strengths from 1/32 to 16 are tried first, larger ones
    if needed; between the first two that enclose a budget, false position in logarithms proposes others until the cost
    is within 2 % of the budget. If none up to 4096 encloses it, strength and nats are NaN. Raises `ValueError` for a budget that is not positive.
    """
    must, todo = "budgets must be positive numbers of nats", "Pass, for example, (0.05, 0.1, 0.2)."
    require(all(budget > 0 for budget in budgets), "strengths_at_cost", must, tuple(budgets), todo)
    tried = {name: pd.Series(0.0, index=[0.0]) for name in dials}
    _measure(chat, dials, prompts, {name: list(FIRST) for name in dials}, tried)
    for _ in range(N_STEPS):
        proposed = {name: [_next(tried[name], budget) for budget in budgets] for name in dials}
        wanted = {name: sorted({each for each in found if each is not None}) for name, found in proposed.items()}
        if not any(wanted.values()):
            break
        _measure(chat, dials, prompts, wanted, tried)
    rows = [(name, budget, *_nearest(tried[name], budget)) for name in dials for budget in budgets]
    return pd.DataFrame(rows, columns=["name", "budget", "strength", "nats"])


def equal_cost(
    chat: ChatModel,
    controlled: pd.DataFrame,
    dials: Mapping[str, Dial],
    prompts: Sequence[str],
    budgets: Sequence[float] = BUDGETS,
    **options: Any,
) -> EqualCost:
    """The judged responses to a controlled set under every dial at the strengths of `strengths_at_cost`.

    `prompts` are the benign prompts on which the cost is measured; they should not be in the controlled set. `options`
    are those of `respond`. Raises `ValueError` if no dial ever spends a budget, and as `strengths_at_cost` does.
    """
    strengths = strengths_at_cost(chat, dials, prompts, budgets)
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


def _next(tried: pd.Series, budget: float) -> float | None:
    """The strength to try next; None if one is near enough or none can enclose the budget."""
    around, last = _enclosing(tried, budget), float(tried.index[-1])
    if around is None:
        return 4 * last if last < LARGEST else None
    if abs(_nearest(tried, budget)[1] / budget - 1) <= TOLERANCE:
        return None
    low, high = around
    if tried[low] <= 0:
        return high / 2 if low == 0 else (low + high) / 2
    share = np.log(budget / tried[low]) / np.log(tried[high] / tried[low])
    return float(low * (high / low) ** float(np.clip(share, 0.05, 0.95)))


def _nearest(tried: pd.Series, budget: float) -> tuple[float, float]:
    """(strength, nats) of the end of the enclosing interval that is nearer to the budget; NaN without one."""
    around = _enclosing(tried, budget)
    if around is None:
        return float("nan"), float("nan")
    strength = min((each for each in around if each > 0), key=lambda each: abs(tried[each] - budget))
    return strength, float(tried[strength])
