"""`run --plan` and `run --minutes`: calibrate, print the plan, and choose sizes that fit."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...model.names import claim_folder, model_folder
from ...model.store import write_whole
from ...notebooks import find_notebooks
from ..runner import figures_root
from ..settings import Settings
from ..side_by_side import shared_threads, usual_jobs
from .calibration import SECONDS, calibrate
from .estimate import Plan, make_plan
from .fitting import Fit, fit_minutes

KEPT = "plan.json"  # in a model's folder: the sizes that were chosen for it, which a second call of the command takes


def print_plan(settings: Settings, numbers: Sequence[str] = (), n_jobs: int | None = None) -> Plan:
    """The plan of a run, printed; nothing else runs than the calibration. Raises `ValueError` as `calibrate` does."""
    plan = _planner(settings, numbers, n_jobs)(settings)
    print(plan)
    return plan


def fit_run(
    settings: Settings, minutes: float, numbers: Sequence[str] = (), n_jobs: int | None = None, *, fresh: bool = False
) -> tuple[Settings, dict[str, Any]]:
    """(settings that fit into `minutes`, the choice for the record), after printing plan and choice.

    The choice is kept next to the model's figures, so that the same command after an interruption takes the same sizes;
    `fresh` chooses again. Raises `ValueError` as `fit_minutes` and `calibrate` do.
    """
    path = model_folder(settings.MODEL, figures_root(settings)) / KEPT
    asked = json.loads(json.dumps({"minutes": minutes, "given": settings.sized, "notebooks": _numbers(numbers)}))
    chosen = None if fresh else _kept(path, asked)
    if chosen is None:
        fit = fit_minutes(settings, minutes, _planner(settings, numbers, n_jobs))
        _print_fit(fit)
        chosen = fit.record()
        claim_folder(settings.MODEL, path.parent.parent)
        write_whole(path, json.dumps({"asked": asked, "chosen": chosen}, indent=1).encode())
    else:
        print(f"Sizes as chosen before ({path.name}; --fresh chooses again): {chosen['values'] or 'all'}")
    return Settings(**{**settings.given, "SIZE": settings.SIZE, **chosen["values"]}), chosen


def _planner(settings: Settings, numbers: Sequence[str], n_jobs: int | None) -> Any:
    """A function that plans a run with other sizes, on this machine's rates."""
    chosen = _numbers(numbers)
    n_at_once = min(len(chosen), usual_jobs(settings.MODEL) if n_jobs is None else n_jobs)
    print(f"Calibrating for about {SECONDS:.0f} seconds, {n_at_once} at once")
    rates, model = calibrate(settings.MODEL, settings.sized, n_at_once, shared_threads(n_at_once))
    return lambda own: make_plan(own, chosen, rates, model, n_at_once)


def _numbers(numbers: Sequence[str]) -> list[str]:
    return [path.name[:2] for path in find_notebooks(numbers)]


def _print_fit(fit: Fit) -> None:
    values = ", ".join(f"{name} {value}" for name, value in fit.values.items()) or "all as they are"
    print(fit.plan, f"Sizes that fit into {fit.minutes:g} min: {values}; loss {fit.loss:.2f}", sep="\n\n")


def _kept(path: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """The choice that was made before for the same question; None if there is none, or the file is damaged."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return kept["chosen"] if kept["asked"] == asked else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
