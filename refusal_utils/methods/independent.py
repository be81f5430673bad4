"""Representational independence: directions whose ablation leaves each other's cosine profile alone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import require
from ..directions import DirectionSet, Provenance
from ..model.batching import in_order, plan_batches, run_batches, token_budget
from ..model.chat_model import ChatModel
from ..model.forward import read_hooks
from ..plotting.look import HEIGHT, TITLES, WIDTH, heatmap
from ..steering import Ablation
from ..steering.row_edits import RowEdits
from .descent import Schedule, checked_schedule, descend, unit_rows
from .method import SearchMethod
from .rdo import TrainedDirection, chosen_of, random_rows, train_direction
from .training import OPTIONS, Training, batch_of, prepare

NAME = "independent"
DEPTH = 0.9  # of the layers count
WEIGHTS, INDEPENDENCE = (1.0, 0.2, 0.1), 200.0  # of the three losses and of the independence


@dataclass(frozen=True, eq=False)
class CosineProfiles:
    """The mean cosine of the last token's state with each direction at every layer (`resid_pre`).

    `plain` [direction, layer]; `ablated` [ablated direction, direction, layer].
    """

    names: tuple[str, ...]
    plain: Float[Tensor, "direction layer"] = field(repr=False)
    ablated: Float[Tensor, "ablated_direction direction layer"] = field(repr=False)

    def shifts(self) -> pd.DataFrame:
        """How far ablating the row's direction moves the column's profile: root mean square over 90 % of the layers.

        Two directions are independent in the sense of RepInd if this is 0 both ways. The diagonal: the whole profile.
        """
        moved = (self.ablated - self.plain)[..., : _depth(self.plain.shape[-1])].square().mean(-1).sqrt()
        index = pd.Index(self.names, name="ablated")
        return pd.DataFrame(moved.tolist(), index=index, columns=pd.Index(self.names, name="profile of"))

    def map(self, *, title: str) -> go.Figure:
        """`shifts` as a map."""
        shifts = self.shifts()
        return heatmap(shifts, title=title, value="rms change of the cosine", limits=(0.0, float(shifts.max().max())))

    def table(self) -> pd.DataFrame:
        """A row per direction, ablated direction ("nothing" first) and layer, with the mean cosine."""
        pairs = {"nothing": self.plain, **dict(zip(self.names, self.ablated, strict=True))}
        frames = {name: pd.DataFrame(values.tolist(), index=list(self.names)) for name, values in pairs.items()}
        long = pd.concat(frames, names=["ablated", "direction"]).rename_axis(columns="layer")
        return long.stack().rename("cosine").reset_index()

    def pairs(self) -> pd.DataFrame:
        """A row per ordered pair: the shift of the profile, and as a share of the profile's own root mean square."""
        shifts = self.shifts()
        rows, size = (
            shifts.stack().rename("shift").reset_index(),
            pd.Series(shifts.to_numpy().diagonal(), shifts.columns),
        )
        rows["share"] = rows["shift"] / rows["profile of"].map(size)
        return rows[rows["ablated"] != rows["profile of"]].set_index(["ablated", "profile of"])

    def figure(self, *names: str, title: str) -> go.Figure:
        """A panel per direction (of `names` or all): its profile with nothing and with each of the others ablated."""
        table, chosen = self.table(), ["nothing", *(names or self.names)]
        own = table["direction"].isin(chosen) & table["ablated"].isin(chosen)
        shown = table[own & (table["ablated"] != table["direction"])].replace({"direction": TITLES, "ablated": TITLES})
        how: dict[str, Any] = {"title": title, "template": "refusal", "width": WIDTH, "height": HEIGHT, "markers": True}
        how |= {"labels": {"cosine": "mean cosine with the state (resid_pre)"}, "facet_col": "direction"}
        figure = px.line(shown, x="layer", y="cosine", color="ablated", **how)
        return figure.for_each_annotation(lambda facet: facet.update(text=facet.text.removeprefix("direction=")))


def cosine_profiles(chat: ChatModel, prompts: Sequence[str], directions: DirectionSet) -> CosineProfiles:
    """The profiles of all `directions` over `prompts`, without an edit and with each of them ablated everywhere."""
    ids, vectors = chat.encode(prompts), directions.vectors.float()
    edits = [(), *((Ablation(each[None]),) for each in vectors)]
    found = []
    for own in edits:

        def step(rows: list[int], own=own) -> tuple[Tensor]:
            states = _states(chat, [ids[row] for row in rows], [own] * len(rows))
            return (_cosines(states, vectors).cpu(),)

        batches = plan_batches(ids, token_budget(NAME, None, chat.device))
        found.append(in_order(run_batches(NAME, batches, step))[0].mean(0))
    return CosineProfiles(directions.names, found[0], torch.stack(found[1:]))


@dataclass(frozen=True, eq=False)
class IndependentDirections:
    """Directions found one after the other, each independent of those before, and how each was trained."""

    found: tuple[TrainedDirection, ...]
    training: Training = field(repr=False)

    def directions(self, place: Provenance, /, **settings: Any) -> DirectionSet:
        """The directions as a set: "independent_1" and so on."""
        names = [f"independent_{number}" for number in range(1, len(self.found) + 1)]
        return self.training.directions(names, torch.stack([each.direction for each in self.found]), place, **settings)


def independent(
    chat: ChatModel,
    prompts: pd.DataFrame,
    *,
    k: int = 2,
    orthogonal: bool = False,
    independence: float = INDEPENDENCE,
    n_updates: int = 148,
    n_prompts: int = 16,
    rate: float = 1e-2,
    patience: int | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = False,
    **preparing: Any,
) -> IndependentDirections:
    """`k` directions, the first that of `rdo`, each next one representationally independent of all before it.

    The losses are those of `rdo` with weight 0.1 for retaining, plus `independence` times the squared change of the
    cosine profiles of both directions when the other is ablated, summed over the first 90 % of the layers, at the last
    prompt token. With `orthogonal`, the new direction is kept orthogonal to those before it instead. `preparing`:
    options of `prepare`. A training that was killed goes on. The authors try five candidates each; this trains one.
    Raises `ValueError` as `prepare` does, and for a `k` below 1. Source: Wollschläger et al. 2502.17420, section 5.
    """
    require(isinstance(k, int) and k >= 1, NAME, "k must be at least 1", repr(k), "The paper finds up to 5.")
    schedule = checked_schedule(NAME, n_updates, n_prompts, rate, patience)
    training = prepare(NAME, chat, prompts, weights=WEIGHTS, cache_dir=cache_dir, **preparing)
    how: dict[str, Any] = {"cache_dir": cache_dir, "progress": progress}
    found = [train_direction(training, schedule, n_prompts, **how)]
    for number in range(1, k):
        before = torch.stack([each.direction for each in found])
        own = replace(training, seed=training.seed + number)
        if orthogonal:
            apart, asked = partial(orthogonal_to, before), ("orthogonal", before.tolist())
            found.append(train_direction(own, schedule, n_prompts, retract=apart, asked=asked, **how))
        else:
            found.append(_independent_of(own, before, independence, schedule, n_prompts, **how))
    return IndependentDirections(tuple(found), training)


def orthogonal_to(
    others: Float[Tensor, "direction d_model"], point: Float[Tensor, "rank d_model"]
) -> Float[Tensor, "rank d_model"]:
    """The unit rows of `point` without their part in the span of `others`."""
    basis = torch.linalg.qr(others.double().T)[0].float()
    return unit_rows(point - point @ basis @ basis.T)


def dependence(
    chat: ChatModel,
    ids: Sequence[list[int]],
    direction: Float[Tensor, " d_model"],
    others: Float[Tensor, "direction d_model"],
) -> Float[Tensor, ""]:
    """The squared change of both cosine profiles when `direction` or one of `others` is ablated, with gradients.

    A sum over others and over the first 90 % of the layers, and a mean over the prompts.
    """
    n = _depth(chat.n_layers)
    with torch.no_grad():
        plain = _states(chat, ids, [()] * len(ids))[:, :n]
        without = [_states(chat, ids, [(Ablation(each[None]),)] * len(ids))[:, :n] for each in others]
    moved = _states(chat, ids, [(Ablation(direction[None]),)] * len(ids))[:, :n]
    back = (_cosines(moved, others) - _cosines(plain, others)).square()
    forth = [(_cosines(each, direction[None]) - _cosines(plain, direction[None])).square() for each in without]
    return (back.sum((1, 2)) + torch.cat(forth, dim=1).sum((1, 2))).mean()


def _independent_of(
    training: Training,
    others: Tensor,
    weight: float,
    schedule: Schedule,
    n_prompts: int,
    *,
    cache_dir: str | Path | None,
    progress: bool,
) -> TrainedDirection:
    """The direction of least loss and dependence."""
    chat, refused = training.losses.chat, training.losses.chat.encode(training.candidates.refused_train)
    one, budget = torch.ones(n_prompts, 1, 1), token_budget(NAME, training.losses.batch_tokens, chat.device)

    def objective(update: int, point: Tensor) -> tuple[Tensor, Tensor]:
        losses, gradient = training.losses.gradient(point, training.chosen(update, n_prompts), one, torch.ones(1))
        own = [refused[row] for row in batch_of(len(refused), n_prompts, update, training.seed)]

        def step(rows: list[int]) -> tuple[Tensor, Tensor]:
            leaf = point[0].detach().clone().requires_grad_()
            value = dependence(chat, [own[row] for row in rows], leaf, others) * len(rows) / len(own)
            return value.detach().cpu(), torch.autograd.grad(value, leaf)[0]

        for _, (value, slope) in run_batches(NAME, plan_batches(own, budget), step, gradients=True):
            losses = torch.cat([losses[:3], losses[3:].sum()[None] + value])
            gradient = gradient + weight * slope
        return losses, gradient

    path = training.path(cache_dir, asdict(schedule), n_prompts, weight, others.tolist())
    start = random_rows(1, chat.d_model, training.seed)
    found = descend(NAME, start, objective, schedule=schedule, retract=unit_rows, path=path, progress=progress)
    return chosen_of(training, found)


def _depth(n_layers: int) -> int:
    return max(1, int(DEPTH * n_layers))


def _states(
    chat: ChatModel, ids: Sequence[list[int]], edits: Sequence[Sequence[Ablation]]
) -> Float[Tensor, "batch layer d_model"]:
    """The last token's `resid_pre` of every layer under each row's own edits."""
    names = [chat.hook_name("resid_pre", layer) for layer in range(chat.n_layers)]
    with RowEdits(chat, edits).open():
        found = read_hooks(chat, chat.pad(ids), names, lambda _, value: value[:, -1])
    return torch.stack([found[name].float().to(chat.device) for name in names], dim=1)


def _cosines(
    states: Float[Tensor, "batch layer d_model"], directions: Float[Tensor, "direction d_model"]
) -> Float[Tensor, "batch direction layer"]:
    unit = states / states.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return directions.to(states.device) @ unit.mT


def _search(study: Any, **options: Any) -> DirectionSet:
    found = independent(study.chat, study.draw, cache_dir=study.cache_dir, progress=True, **options)
    return found.directions(study.provenance(found.training.layer, found.training.pos), **options)


METHOD = SearchMethod(
    name=NAME,
    title="Representationally independent directions",
    source="Wollschläger et al., arXiv 2502.17420, section 5 (RepInd)",
    needs=("forward passes", "gradients", "first tokens of refusals"),
    options={**OPTIONS, "n_updates": 148, "k": 2, "orthogonal": False, "independence": INDEPENDENCE},
    search=_search,
)
