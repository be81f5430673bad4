"""Refusal cones: orthonormal vectors whose mixtures all refuse when added, and stop refusals when ablated."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import require
from ..directions import DirectionSet, Provenance
from ..model.chat_model import ChatModel
from ..plotting.look import HEIGHT, WIDTH
from .descent import Schedule, descend, unit_rows
from .method import SearchMethod
from .rdo import random_rows
from .selection import MAX_KL
from .training import N_LAST, OPTIONS, Training, prepare

NAME = "cones"
MONITORED = 9  # seed of the samples that choose; those of the check are others
STRIDE = 4  # bases that are compared lie this many updates apart: neighbours hardly differ


@dataclass(frozen=True, eq=False)
class Cone:
    """The mixtures of the orthonormal rows of `basis` whose coefficients are not negative.

    `samples`: bypass, induce and kl of each row of the basis, then of random directions of the cone, and which limits
    each misses (`misses`, empty if it both ablates and induces).
    """

    basis: Float[Tensor, "rank d_model"] = field(repr=False)
    samples: pd.DataFrame = field(repr=False)

    @property
    def holds(self) -> bool:
        """Whether every sampled direction ablates, induces and costs little."""
        return bool((self.samples["misses"] == "").all())

    def shares(self, directions: DirectionSet, *, n_random: int = 1000, seed: int = 0) -> pd.DataFrame:
        """The share of each direction's squared length in the cone, in its span, and in the best span of that size.

        The best span is that of the directions' own first principal axes (through 0), an upper bound. The last row is
        the 95th percentile of random directions.
        """
        own, k = directions.vectors.float(), len(self.basis)
        random = random_rows(n_random, own.shape[1], seed)
        best = torch.linalg.svd(own, full_matrices=False)[2][:k]
        columns: dict[str, list[float]] = {"in the cone": [], "in its span": [], "in the best span": []}
        for name, basis, is_cone in zip(columns, (self.basis, self.basis, best), (True, False, False), strict=True):
            null = share_inside(random, basis, is_cone).quantile(0.95)
            columns[name] = [*share_inside(own, basis, is_cone).tolist(), float(null)]
        return pd.DataFrame(columns, index=pd.Index([*directions, "random, 95 %"], name="direction"))


@dataclass(frozen=True, eq=False)
class ConeSearch:
    """Cones of dimension 1, 2, ..., the last of which may not hold."""

    cones: tuple[Cone, ...]
    training: Training = field(repr=False)

    def table(self) -> pd.DataFrame:
        """By dimension: the mean and the worst bypass, induce and KL over the samples, the share of them that pass."""
        rows = {}
        for k, each in enumerate(self.cones, 1):
            found = each.samples
            worst = {"bypass": found["bypass"].max(), "induce": found["induce"].min(), "kl": found["kl"].max()}
            row = {name: found[name].mean() for name in worst} | {f"worst {name}": at for name, at in worst.items()}
            rows[k] = {**row, "passing": (found["misses"] == "").mean(), "holds": each.holds}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("dimension")

    def figure(self) -> go.Figure:
        """Bypass and induce of every sampled direction, by dimension."""
        rows = pd.concat({str(k): each.samples for k, each in enumerate(self.cones, 1)}, names=["dimension"])
        long = rows.reset_index("dimension").melt("dimension", ["bypass", "induce"], "score", "value")
        title = "Refusal scores of directions sampled from cones: ablated (bypass) and added (induce)"
        how: dict[str, Any] = {"title": title, "template": "refusal", "width": WIDTH, "height": HEIGHT}
        figure = px.box(long, x="dimension", y="value", color="score", points="all", **how)
        return figure.add_hline(0.0, line_dash="dot")

    @property
    def best(self) -> Cone:
        """The largest cone that holds. Raises `ValueError` if not even a single direction does."""
        held = [each for each in self.cones if each.holds]
        must = "a single direction must hold at the limits before a cone can grow"
        got = f"one that misses {self.cones[0].samples['misses'].iloc[0]}"
        require(bool(held), NAME, must, got, "Train longer, or raise max_bypass or max_kl.")
        return held[-1]

    def directions(self, place: Provenance, /, **settings: Any) -> DirectionSet:
        """The rows of the largest cone that holds, called "cone_1" and so on."""
        names = [f"cone_{row}" for row in range(1, len(self.best.basis) + 1)]
        return self.training.directions(names, self.best.basis, place, **settings)


def cones(
    chat: ChatModel,
    prompts: pd.DataFrame,
    *,
    k: int = 4,
    n_updates: int = 74,
    n_prompts: int = 16,
    rate: float = 1e-2,
    n_draws: int = 2,
    n_chosen_by: int = 8,
    n_samples: int = 64,
    max_bypass: float = 0.0,
    min_induce: float = 0.0,
    max_kl: float = MAX_KL,
    cache_dir: str | Path | None = None,
    progress: bool = False,
    **preparing: Any,
) -> ConeSearch:
    """Cones of dimension 1 to `k`, each grown from the one before by a random row, until one does not hold.

    Every update measures each prompt with `n_draws` random directions of the cone and with one row of the basis. Among
    every fourth of the last 20 bases, the paper's rule chooses by `n_chosen_by` random directions. The cone holds if
    its rows and `n_samples` others keep the limits. `preparing`: options of `prepare`. Raises `ValueError` as it does,
    and for a `k` outside 1 to the model's width. Source: Wollschläger et al. 2502.17420, section 4 and appendix C.
    """
    must, todo = f"k must be from 1 to the width of the model, {chat.d_model}", "The paper finds up to 5."
    require(1 <= k <= chat.d_model, NAME, must, k, todo)
    training = prepare(NAME, chat, prompts, cache_dir=cache_dir, **preparing)
    limits, asked = (max_bypass, min_induce, max_kl), [n_updates, n_prompts, rate, n_draws, n_chosen_by, max_kl]
    found, start = list[Cone](), random_rows(1, chat.d_model, training.seed)
    for rank in range(1, k + 1):
        bases = _descent(training, start, asked, cache_dir, progress)
        basis = bases[_chosen(training, bases, n_chosen_by, max_kl)]
        found.append(Cone(basis, _checked(training, basis, n_samples, limits)))
        if not found[-1].holds:
            fails = found[-1].samples["misses"] != ""
            print(f"{NAME}: the cone of dimension {rank} does not hold: {fails.sum()} of {len(fails)} fail")
            break
        start = orthonormal_rows(torch.cat([basis, random_rows(1, chat.d_model, training.seed + rank)]))
    return ConeSearch(tuple(found), training)


def sampled_mixtures(n: int, rank: int, seed: int) -> Float[Tensor, "draw rank"]:
    """`n` random mixtures, |z| / norm(z) for normal z: uniform on the sphere's part of positive coordinates."""
    return unit_rows(torch.randn(n, rank, generator=torch.Generator().manual_seed(seed)).abs())


def orthonormal_rows(rows: Float[Tensor, "rank d_model"]) -> Float[Tensor, "rank d_model"]:
    """The Gram-Schmidt rows of `rows`: the first keeps its direction."""
    q, r = torch.linalg.qr(rows.double().T)
    return (q * r.diagonal().sign()).T.float().contiguous()


def share_inside(
    directions: Float[Tensor, "direction d_model"], basis: Float[Tensor, "rank d_model"], is_cone: bool
) -> Float[Tensor, " direction"]:
    """The squared length of each unit direction's part in the cone of orthonormal rows, or in their span.

    The nearest point of the cone has the coordinates that are not negative, and 0 for the others.
    """
    along = directions @ basis.T
    return (along.clamp(min=0) if is_cone else along).square().sum(-1)


def _descent(
    training: Training, start: Tensor, asked: Sequence[Any], cache_dir: str | Path | None, progress: bool
) -> Float[Tensor, "row rank d_model"]:
    """Every fourth of the last 20 bases of the training from `start`, the last one included."""
    n_updates, n_prompts, rate, n_draws, *_ = asked
    rank = len(start)
    shares = torch.tensor([1 / n_draws] * n_draws + [1.0]) if rank > 1 else torch.ones(1)

    def objective(update: int, point: Tensor) -> tuple[Tensor, Tensor]:
        mixtures = _mixtures(n_prompts, n_draws, rank, 1_000 * training.seed + update)
        return training.losses.gradient(point, training.chosen(update, n_prompts), mixtures, shares)

    schedule, path = Schedule(n_updates=n_updates, rate=rate), training.path(cache_dir, rank, *asked)
    how: dict[str, Any] = {"schedule": schedule, "retract": orthonormal_rows, "path": path, "progress": progress}
    return descend(NAME, start, objective, **how).points[-N_LAST:].flip(0)[::STRIDE].flip(0)


def _mixtures(n_prompts: int, n_draws: int, rank: int, seed: int) -> Float[Tensor, "prompt draw rank"]:
    """Random mixtures for every prompt, and one row of the basis: all rows in turn."""
    if rank == 1:
        return torch.ones(n_prompts, 1, 1)
    drawn = sampled_mixtures(n_prompts * n_draws, rank, seed).unflatten(0, (n_prompts, n_draws))
    rows = torch.eye(rank)[torch.arange(n_prompts) % rank]
    return torch.cat([drawn, rows[:, None]], dim=1)


def _chosen(training: Training, bases: Float[Tensor, "row rank d_model"], n: int, max_kl: float) -> int:
    """The basis with the lowest mean bypass within the paper's limits, of which the last are given up first."""
    rank = bases.shape[1]
    mixed = torch.cat([torch.eye(rank), sampled_mixtures(n, rank, MONITORED)]) if rank > 1 else torch.ones(1, 1)
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
    found = cones(study.chat, study.draw, cache_dir=study.cache_dir, **options)
    return found.directions(study.provenance(found.training.layer, found.training.pos), **options)


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
    },
    search=_search,
)
