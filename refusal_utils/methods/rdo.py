"""Refusal direction optimisation: the direction of least loss, found by gradients."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from ..directions import DirectionSet, Provenance
from ..model.chat_model import ChatModel
from ..plotting.look import HEIGHT, WIDTH
from .descent import Descent, Point, Schedule, checked_schedule, descend, unit_rows
from .method import POOLED, SearchMethod
from .training import N_LAST, OPTIONS, Training, best_of, prepare

NAME = "rdo"
LOSSES = ["answering", "refusing", "retaining"]


@dataclass(frozen=True, eq=False)
class TrainedDirection:
    """A direction found by gradients, and how.

    `rows`: an update each, with the losses before it, and for the last 20 the bypass, induce and kl of the direction
    after it (NaN for the others); the `chosen` one has the lowest bypass among those with a KL of at most 0.1 that
    induce.
    """

    direction: Float[Tensor, " d_model"] = field(repr=False)
    rows: pd.DataFrame = field(repr=False)
    chosen: int
    training: Training = field(repr=False)

    def table(self) -> pd.DataFrame:
        """`rows`, with the cosine of each update's direction to the difference in means."""
        return self.rows

    def figure(self) -> go.Figure:
        """The three losses over the updates."""
        long = self.rows.melt("update", [name for name in self.rows if name in LOSSES], "loss", "value")
        title = f"{self.training.losses.function}: losses on the prompts of each update"
        how: dict[str, Any] = {"title": title, "template": "refusal", "width": WIDTH, "height": HEIGHT, "log_y": True}
        figure = px.line(long, x="update", y="value", color="loss", labels={"value": "nats"}, markers=True, **how)
        return figure.add_vline(self.chosen, line_dash="dot")

    def directions(self, place: Provenance, /, **settings: Any) -> DirectionSet:
        """The direction as a set, called "refusal"."""
        cosine = float(self.direction @ self.training.difference / self.training.difference.norm())
        scores = self.rows.loc[self.chosen, ["bypass", "induce", "kl"]].astype(float).to_dict()
        told = {**settings, "scores": scores, "cosine_to_difference": cosine}
        told |= {"chosen": self.chosen, "losses": self.rows[LOSSES].round(6).to_numpy().tolist()}
        return self.training.directions((POOLED,), self.direction[None], place, **told)


def rdo(
    chat: ChatModel,
    prompts: pd.DataFrame,
    *,
    n_updates: int = 74,
    n_prompts: int = 16,
    rate: float = 1e-2,
    patience: int | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = False,
    **preparing: Any,
) -> TrainedDirection:
    """The direction whose ablation makes the model answer, whose addition makes it refuse, and which costs little.

    It starts at random and is moved by `n_updates` steps of AdamW at the given `rate`, each on `n_prompts` prompts of
    every kind; `patience` may end this earlier (`Schedule`). Among the last 20, the paper's rule chooses (`best_of`).
    `preparing`: options of `prepare`, such as kl, place and seed. With `cache_dir`, a training that was killed goes on.

    The authors train once on 1,184 prompts a side; here there are fewer, so they are used several times. Raises
    `ValueError` as `prepare` does. Source: Wollschläger et al. 2502.17420, section 4.
    """
    schedule = checked_schedule(NAME, n_updates, n_prompts, rate, patience)
    training = prepare(NAME, chat, prompts, cache_dir=cache_dir, **preparing)
    return train_direction(training, schedule, n_prompts, cache_dir=cache_dir, progress=progress)


def train_direction(
    training: Training,
    schedule: Schedule,
    n_prompts: int,
    *,
    retract: Callable[[Point], Point] = unit_rows,
    asked: tuple[Any, ...] = (),
    cache_dir: str | Path | None = None,
    progress: bool = False,
) -> TrainedDirection:
    """`rdo` with a training that is prepared; `asked`: what else a stored descent depends on, such as `retract`."""
    path = training.path(cache_dir, asdict(schedule), n_prompts, *asked)
    one = torch.ones(n_prompts, 1, 1)

    def objective(update: int, point: Tensor) -> tuple[Tensor, Tensor]:
        return training.losses.gradient(point, training.chosen(update, n_prompts), one, torch.ones(1))

    start = retract(random_rows(1, training.losses.chat.d_model, training.seed))
    how: dict[str, Any] = {"schedule": schedule, "retract": retract, "path": path, "progress": progress}
    return chosen_of(training, descend(training.losses.function, start, objective, **how))


def chosen_of(training: Training, found: Descent) -> TrainedDirection:
    """The direction that the paper's rule chooses among the last 20 of a descent of one vector."""
    points, unit = found.points[:, 0], training.difference / training.difference.norm()
    rows = pd.DataFrame(found.losses[:, :3].tolist(), columns=LOSSES)
    rows.insert(0, "update", range(1, len(rows) + 1))
    rows["cosine"] = (points @ unit).tolist()
    scores = training.scores(points[-N_LAST:]).set_axis(rows.index[-N_LAST:])
    best = best_of(scores)
    return TrainedDirection(points[best], rows.join(scores), best, training)


def random_rows(n: int, d_model: int, seed: int) -> Float[Tensor, "rank d_model"]:
    """`n` random unit rows."""
    return unit_rows(torch.randn(n, d_model, generator=torch.Generator().manual_seed(seed)))


def _search(study: Any, **options: Any) -> DirectionSet:
    found = rdo(study.chat, study.draw, cache_dir=study.cache_dir, progress=True, **options)
    return found.directions(study.provenance(found.training.layer, found.training.pos), **options)


METHOD = SearchMethod(
    name=NAME,
    title="Refusal direction optimisation",
    source="Wollschläger et al., arXiv 2502.17420, section 4",
    needs=("forward passes", "gradients", "first tokens of refusals"),
    options=OPTIONS,
    search=_search,
)
