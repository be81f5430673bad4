"""Sizes that fit a time: the parameters are lowered, one step at a time, where a second costs least precision.

The half-width of a 95 % interval goes with 1 / sqrt(n). A parameter that is lowered from n0 to n widens the intervals
that it decides by a factor of sqrt(n0 / n); the loss of a choice is the sum of sqrt(n0 / n) - 1 over all parameters. As
long as the plan takes too long, the step with the least additional loss per second saved is made.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

from ...checks import require
from ..settings import Settings
from ..sizes import SIZES
from .estimate import Plan

RULE = "least additional loss per second saved; loss = sum over parameters of sqrt(n0 / n) - 1"
STEP = 0.7  # of a parameter's value: its square root is how far one step widens an interval, about a fifth
# The least that a parameter is lowered to: what `--size quick` sets, or half of it where even that is worth its time.
LOWEST = {name: size.quick for name, size in SIZES.items() if isinstance(size.quick, int)}
FEW, STRENGTHS = "few", ("GAPS", "CONTROL_GAPS")  # the parameters that are lists of steering strengths
N_STRENGTHS = {None: 6, FEW: 3}  # about how many strengths are in each of the model's own lists
POOLED = 128  # about as many prompts as a kind has, if N_POOL or N_TRAINED is None
KEPT = ("N_BOOTSTRAP", "N_DRAWS", "N_UPDATES", "CONE_K")  # draws cost little; training needs its updates


@dataclass(frozen=True)
class Fit:
    """The sizes chosen for a time: `values` of the parameters that were lowered, the plan with them, and the loss."""

    minutes: float
    values: dict[str, Any]
    plan: Plan
    loss: float

    def record(self) -> dict[str, Any]:
        """The choice as plain values, for the record of a run."""
        return {
            "minutes": self.minutes,
            "rule": RULE,
            "values": self.values,
            "loss": round(self.loss, 3),
            "planned minutes": round(self.plan.minutes, 2),
        }


def fit_minutes(settings: Settings, minutes: float, plan_of: Callable[[Settings], Plan]) -> Fit:
    """The sizes with which the run takes at most `minutes` by `plan_of`, losing least precision (`RULE`).

    Parameters that were given stay as they are, and none is raised above the size of `settings`. Raises `ValueError` if
    the smallest sizes take longer.
    """
    require(minutes > 0, "fit_minutes", "the minutes must be a positive number", minutes, "Give, for example, 30.")
    full = {**{name: info.default for name, info in Settings.model_fields.items()}, **settings.sized}
    values, plan = dict[str, Any](), plan_of(settings)
    while plan.minutes > minutes:
        steps = _steps({**full, **values}, settings.given)
        tried = [(name, value, plan_of(_with(settings, {**values, name: value}))) for name, value in steps.items()]
        saving = [each for each in tried if each[2].minutes < plan.minutes - 1e-6]
        got, todo = f"{plan.minutes:.1f} at the smallest sizes", "Give more time, fewer notebooks or a smaller model."
        require(bool(saving), "fit_minutes", f"the run must fit into {minutes:g} minutes", got, todo)
        now = _loss(full, values)
        name, value, plan = min(
            saving,
            key=lambda each: (_loss(full, {**values, each[0]: each[1]}) - now) / (plan.minutes - each[2].minutes),
        )
        values[name] = value
    return Fit(minutes, values, plan, _loss(full, values))


def _steps(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The next smaller value of every parameter that may be lowered."""
    found: dict[str, Any] = {}
    for name, least in LOWEST.items():
        if name in given or name in KEPT:
            continue
        value = POOLED if values[name] is None else values[name]
        lower = max(least, int(value * STEP))
        if lower < value:
            found[name] = lower
    strengths = {name: FEW for name in STRENGTHS if values[name] is None and name not in given}
    return {**found, **strengths}


def _loss(full: Mapping[str, Any], values: Mapping[str, Any]) -> float:
    return sum(sqrt(_size(name, full[name]) / _size(name, value)) - 1 for name, value in values.items())


def _size(name: str, value: Any) -> float:
    """The number that a parameter's value stands for; None is all prompts of a kind, or all strengths."""
    if name in STRENGTHS:
        return N_STRENGTHS.get(value, 0) if not isinstance(value, list) else len(value)
    return float(POOLED if value is None else value)


def _with(settings: Settings, values: Mapping[str, Any]) -> Settings:
    return Settings(**{**settings.given, "SIZE": settings.SIZE, **values})
