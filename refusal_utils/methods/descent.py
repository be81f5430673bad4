"""Descent on the sphere: AdamW over a few unit vectors, stored after every update, so that a killed run goes on."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import require, require_types
from ..model.artifacts import load_kept, load_tensors, save_tensors
from ..model.progress import Progress

Point = Float[Tensor, "rank d_model"]
# (number of the update, point) -> (losses, gradient of what is minimised)
Objective = Callable[[int, Tensor], tuple[Tensor, Tensor]]
BETAS, CLIP = (0.9, 0.98), 10.0
STATE = ("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")  # of AdamW


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long to train: `n_updates` as in the paper, or at most so many with a `patience` (5 in the released code).

    With it, the rate is divided by 10 whenever the sum of the losses has had no new minimum for so many updates; after
    the `n_cuts`-th cut, the next such time ends training. The losses are those of an update's own prompts, so chance
    can end it early.
    """

    n_updates: int = 74
    rate: float = 1e-2
    patience: int | None = None
    n_cuts: int = 2


def checked_schedule(
    function: str, n_updates: int, n_prompts: int, rate: float, patience: int | None = None
) -> Schedule:
    """The schedule with these options. Raises `ValueError` in the name of `function` for one that cannot train."""
    require_types(function, (Integral,), n_updates=n_updates, n_prompts=n_prompts)
    require_types(function, (Integral, type(None)), patience=patience)
    for name, n in {"n_updates": n_updates, "n_prompts": n_prompts, "patience": patience}.items():
        require(n is None or n >= 1, function, f"{name} must be at least 1", n, "Leave it out for the default.")
    is_rate = isinstance(rate, int | float) and 0 < rate < math.inf
    require(is_rate, function, "rate must be a positive number", repr(rate), "The paper uses 0.01.")
    return Schedule(n_updates=n_updates, rate=rate, patience=patience)


@dataclass(frozen=True, eq=False)
class Descent:
    """The points after each update, and the losses before it, one row per update; `optimizer` is the state of AdamW."""

    points: Float[Tensor, "row rank d_model"] = field(repr=False)
    losses: Float[Tensor, "row component"]
    optimizer: dict[str, Float[Tensor, "..."]] = field(repr=False)

    def __len__(self) -> int:
        """How many updates were made."""
        return len(self.points)

    def cuts(self, schedule: Schedule) -> int:
        """How often the rate has been cut by now; more than `n_cuts` means that training is over."""
        best, waited, cuts = float("inf"), 0, 0
        for total in self.losses.sum(-1).tolist():
            waited = 0 if total < best else waited + 1
            best = min(best, total)
            if waited == schedule.patience:
                waited, cuts = 0, cuts + 1
        return cuts

    def is_over(self, schedule: Schedule) -> bool:
        """Whether no further update is due."""
        return len(self) >= schedule.n_updates or self.cuts(schedule) > schedule.n_cuts


def descend(
    function: str,
    start: Point,
    objective: Objective,
    *,
    schedule: Schedule,
    retract: Callable[[Point], Point],
    path: Path | None = None,
    progress: bool = False,
) -> Descent:
    """The descent from `start`; the gradient's part along each vector is removed, and `retract` follows every update.

    `objective` must depend on nothing but its arguments. With a `path` the descent is written there after every update,
    and one that was killed goes on from there as if it had not been. Source: 2502.17420, appendix C.
    """
    empty = Descent(start.new_empty(0, *start.shape), torch.empty(0, 3), {})
    state = load_kept(_load, path) or empty
    with Progress(function, schedule.n_updates, "updates", bar=progress) as shown:
        shown.skip(len(state))
        while not state.is_over(schedule):
            point = state.points[-1] if len(state) else start
            losses, gradient = objective(len(state), point)
            rate = schedule.rate / 10 ** state.cuts(schedule)
            moved, optimizer = _update(point, gradient, state.optimizer, rate)
            points, kept = [*state.points, retract(moved)], [*state.losses, losses]
            state = Descent(torch.stack(points), torch.stack(kept), optimizer)
            _save(path, state)
            shown.advance(1)
    return state


def unit_rows(point: Point) -> Point:
    """`point` with every row scaled to norm 1."""
    return point / point.norm(dim=-1, keepdim=True)


def _update(point: Tensor, gradient: Tensor, state: dict[str, Tensor], rate: float) -> tuple[Tensor, dict[str, Tensor]]:
    """(the point after one step of AdamW along the sphere's tangent, the optimizer's state)."""
    own = torch.nn.Parameter(point.clone())
    optimizer = torch.optim.AdamW([own], lr=rate, betas=BETAS, weight_decay=0.0, amsgrad=True)
    if state:
        optimizer.state[own] = {name: value.clone() for name, value in state.items()}
    own.grad = gradient - (gradient * point).sum(-1, keepdim=True) * point
    torch.nn.utils.clip_grad_norm_([own], CLIP)
    optimizer.step()
    return own.detach(), {name: optimizer.state[own][name] for name in STATE}


def _save(path: Path | None, state: Descent) -> None:
    if path is not None:
        save_tensors(path, {"points": state.points, "losses": state.losses, **state.optimizer}, {})


def _load(path: Path) -> Descent:
    tensors, _ = load_tensors(path)
    require(set(tensors) == {"points", "losses", *STATE}, "descend", "the file must hold a descent", path, "Delete it.")
    return Descent(tensors["points"], tensors["losses"], {name: tensors[name] for name in STATE})
