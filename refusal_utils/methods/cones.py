"""Refusal cones: orthonormal vectors whose mixtures all refuse when added, and stop refusals when ablated."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import require, require_types
from ..directions import DirectionSet
from ..model.chat_model import ChatModel
from .cone_results import NAME, Cone, ConeSearch
from .descent import Schedule, checked_schedule, descend, unit_rows
from .method import SearchMethod
from .rdo import NAME as RDO
from .rdo import random_rows, train_direction
from .selection import MAX_KL
from .training import N_LAST, OPTIONS, Training, prepare

MONITORED = 9  # seed of the samples that choose; those of the check are others
STRIDE = 4  # bases that are compared lie this many updates apart: neighbours hardly differ


def cones(
    chat: ChatModel,
    prompts: pd.DataFrame,
    *,
    k: int = 4,
    n_updates: int = 74,
    n_prompts: int = 16,
    rate: float = 1e-2,
    patience: int | None = None,
    n_draws: int = 2,
    n_chosen_by: int = 8,
    n_samples: int = 64,
    max_bypass: float = 0.0,
    min_induce: float = 0.0,
    max_kl: float = MAX_KL,
    complete: bool = False,
    cache_dir: str | Path | None = None,
    progress: bool = False,
    **preparing: Any,
) -> ConeSearch:
    """Cones of dimension 1 to `k`, each grown from the one before by a random row, until one does not hold.

    The first is the direction that `rdo` finds. Every update of the others measures each prompt with `n_draws` random
    directions of the cone and with one row of the basis. Among every fourth of the last 20 bases, the paper's rule
    chooses by `n_chosen_by` random directions. The cone holds if its rows and `n_samples` others keep the limits. With
    `complete`, one that does not hold is grown, too. `preparing`: options of `prepare`. Raises `ValueError` as it does,
    and for a `k` outside 1 to the model's width. Source: Wollschläger et al. 2502.17420, section 4 and appendix C.
    """
    require_types(NAME, (Integral,), k=k)
    require(1 <= k <= chat.d_model, NAME, f"k must be from 1 to the width of the model, {chat.d_model}", k, "Try 2.")
    schedule = checked_schedule(NAME, n_updates, n_prompts, rate, patience)
    training = prepare(NAME, chat, prompts, cache_dir=cache_dir, **preparing)
    limits, asked = (max_bypass, min_induce, max_kl), [schedule, n_prompts, n_draws, n_chosen_by, max_kl]
    how: dict[str, Any] = {"cache_dir": cache_dir, "progress": progress}
    found: list[Cone] = []
    while len(found) < k and (complete or all(each.holds for each in found)):
        basis = _grown(training, found[-1].basis, asked, **how) if found else _first(training, schedule, n_prompts, how)
        found.append(Cone(basis, _checked(training, basis, n_samples, limits)))
        print(f"{NAME}: {found[-1].describe()}")
    return ConeSearch(tuple(found), training)


def sampled_mixtures(n: int, rank: int, seed: int) -> Float[Tensor, "draw rank"]:
    """`n` random mixtures, |z| / norm(z) for normal z: uniform on the sphere's part of positive coordinates."""
    return unit_rows(torch.randn(n, rank, generator=torch.Generator().manual_seed(seed)).abs())


def orthonormal_rows(rows: Float[Tensor, "rank d_model"]) -> Float[Tensor, "rank d_model"]:
    """The Gram-Schmidt rows of `rows`: the first keeps its direction."""
    q, r = torch.linalg.qr(rows.double().T)
    return (q * r.diagonal().sign()).T.float().contiguous()


def _first(training: Training, schedule: Schedule, n_prompts: int, how: dict[str, Any]) -> Tensor:
    """The direction of `rdo`, whose file it shares."""
    own = replace(training, losses=replace(training.losses, function=RDO))
    return train_direction(own, schedule, n_prompts, **how).direction[None]


def _grown(
    training: Training, before: Tensor, asked: Sequence[Any], cache_dir: str | Path | None, progress: bool
) -> Float[Tensor, "rank d_model"]:
    """The basis trained from that `before` and a random row: the best of every fourth of its last 20."""
    schedule, n_prompts, n_draws, n_chosen_by, max_kl = asked
    rank, shares = len(before) + 1, torch.tensor([1 / n_draws] * n_draws + [1.0])
    start = orthonormal_rows(torch.cat([before, random_rows(1, before.shape[1], training.seed + rank - 1)]))

    def objective(update: int, point: Tensor) -> tuple[Tensor, Tensor]:
        mixtures = _mixtures(n_prompts, n_draws, rank, 1_000 * training.seed + update)
        return training.losses.gradient(point, training.chosen(update, n_prompts), mixtures, shares)

    path = training.path(cache_dir, start.tolist(), asdict(schedule), *asked[1:])
    how: dict[str, Any] = {"schedule": schedule, "retract": orthonormal_rows, "path": path, "progress": progress}
    bases = descend(NAME, start, objective, **how).points[-N_LAST:].flip(0)[::STRIDE].flip(0)
    return bases[_chosen(training, bases, n_chosen_by, max_kl)]


def _mixtures(n_prompts: int, n_draws: int, rank: int, seed: int) -> Float[Tensor, "prompt draw rank"]:
    """Random mixtures for every prompt, and one row of the basis: all rows in turn."""
    drawn = sampled_mixtures(n_prompts * n_draws, rank, seed).unflatten(0, (n_prompts, n_draws))
    rows = torch.eye(rank)[torch.arange(n_prompts) % rank]
    return torch.cat([drawn, rows[:, None]], dim=1)


def _chosen(training: Training, bases: Float[Tensor, "row rank d_model"], n: int, max_kl: float) -> int:
    """The basis with the lowest mean bypass within the paper's limits, of which the last are given up first."""
    rank = bases.shape[1]
    mixed = torch.cat([torch.eye(rank), sampled_mixtures(n, rank, MONITORED)])
    scores = training.scores(unit_rows((mixed @ bases).flatten(0, 1)))
    bypass, induce, kl = (scores[name].to_numpy().reshape(len(bases), -1) for name in ("bypass", "induce", "kl"))
    limits = [kl.max(1) <= max_kl, induce.mean(1) >= 0, induce[:, :rank].min(1) >= 0]
    alive = np.ones(len(bases), dtype=bool)
    for limit in limits:
        alive = alive & limit if (alive & limit).any() else alive
    return int(np.where(alive, bypass.mean(1), np.inf).argmin())


def _checked(
    training: Training, basis: Float[Tensor, "rank d_model"], n: int, limits: tuple[float, float, float]
) -> pd.DataFrame:
    """The effects of the rows of the basis and of `n` random mixtures, with the limits that each misses."""
    rank, (max_bypass, min_induce, max_kl) = len(basis), limits
    mixed = torch.cat([torch.eye(rank), sampled_mixtures(n, rank, 42)]) if rank > 1 else torch.ones(1, 1)
    found = training.scores(unit_rows(mixed @ basis))
    missed = {
        f"bypass <= {max_bypass:g}": ~(found["bypass"] <= max_bypass),
        f"induce >= {min_induce:g}": ~(found["induce"] >= min_induce),
        f"KL <= {max_kl:g}": ~(found["kl"] <= max_kl),
    }
    return found.assign(misses=[", ".join(name for name, rows in missed.items() if rows[at]) for at in found.index])


def _search(study: Any, **options: Any) -> DirectionSet:
    found = cones(study.chat, study.draw, cache_dir=study.cache_dir, progress=True, **options)
    assert found.training is not None
    place = study.provenance(found.training.layer, found.training.pos)
    return found.directions(place, every=options["complete"], **options)


METHOD = SearchMethod(
    name=NAME,
    title="Refusal cone",
    source="Wollschläger et al., arXiv 2502.17420, section 4 (RCO)",
    needs=("forward passes", "gradients", "first tokens of refusals"),
    options={
        **OPTIONS,
        "k": 4,
        "n_draws": 2,
        "n_chosen_by": 8,
        "n_samples": 64,
        "max_bypass": 0.0,
        "min_induce": 0.0,
        "max_kl": MAX_KL,
        "complete": False,
    },
    search=_search,
)
