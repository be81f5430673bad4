"""What a search for refusal cones found: cones, the effects of directions sampled from them, and others inside."""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import require
from ..directions import DirectionSet, Provenance
from ..plotting.look import HEIGHT, TITLES, WIDTH
from .rdo import random_rows
from .training import Training

NAME = "cones"
CONE, SPAN, RANDOM = "cone", "span of the cone", "random, 95 %"


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

    def describe(self) -> str:
        """Whether it holds, and how many samples miss each limit."""
        missed = self.samples["misses"][self.samples["misses"] != ""].str.split(", ").explode().value_counts()
        limits = ", ".join(f"{n} miss {limit}" for limit, n in missed.items())
        told = f"does not hold: of {len(self.samples)} directions {limits}" if limits else "holds"
        return f"the cone of dimension {len(self.basis)} {told}"

    def shares(self, directions: DirectionSet, *, n_random: int = 1000, seed: int = 0) -> "ConeShares":
        """The share of each direction's squared length in the cone, in its span, and in the best span of that size.

        The best span is that of the directions' own first principal axes (through 0), an upper bound on average.
        """
        own, k = directions.vectors.float(), len(self.basis)
        random = random_rows(n_random, own.shape[1], seed)
        best = torch.linalg.svd(own, full_matrices=False)[2][:k]
        bases = {CONE: (self.basis, True), SPAN: (self.basis, False), "best span": (best, False)}
        found = {name: share_inside(own, *each).tolist() for name, each in bases.items()}
        chance = {name: float(share_inside(random, *each).quantile(0.95)) for name, each in bases.items()}
        return ConeShares(pd.DataFrame(found, index=pd.Index([*directions], name="direction")), pd.Series(chance))


@dataclass(frozen=True, eq=False)
class ConeShares:
    """The share of each direction (row) in a cone, its span and the best span; `chance`: 95th percentiles at random."""

    shares: pd.DataFrame
    chance: pd.Series

    def table(self) -> pd.DataFrame:
        """A row per direction, then what 95 % of random directions stay below."""
        return pd.concat([self.shares, self.chance.rename(RANDOM).to_frame().T]).rename_axis("direction")

    def figure(self, *, title: str) -> go.Figure:
        """Bars of the three shares; the line is the 95th percentile of random directions in the span."""
        long = self.shares.rename(index=TITLES).reset_index().melt("direction", var_name="share in", value_name="share")
        how: dict[str, Any] = {"title": title, "template": "refusal", "width": WIDTH, "height": HEIGHT}
        labels = {"share": "share of the squared length", "direction": ""}
        figure = px.bar(long, x="direction", y="share", color="share in", barmode="group", labels=labels, **how)
        return figure.add_hline(self.chance[SPAN], line_dash="dot", name=RANDOM, showlegend=True)


@dataclass(frozen=True, eq=False)
class ConeSearch:
    """Cones of dimension 1, 2, ..., of which some may not hold; `training` is None if they were read from a set."""

    cones: tuple[Cone, ...]
    training: Training | None = field(default=None, repr=False)

    @classmethod
    def of(cls, directions: DirectionSet) -> "ConeSearch":
        """The search whose `directions(..., every=True)` this is. Raises `ValueError` for another set."""
        samples: list[dict[str, Any]] = directions.provenance.settings.get("samples", [])
        must, todo = "the set must hold every cone of a search", "Make it with complete=True."
        require(bool(samples), "ConeSearch.of", must, directions.provenance.estimator, todo)
        ranks = range(1, len(samples) + 1)
        bases = directions.vectors.split([*ranks])
        return cls(tuple(Cone(basis, pd.DataFrame(rows)) for basis, rows in zip(bases, samples, strict=True)))

    def table(self) -> pd.DataFrame:
        """By dimension: the mean and the worst bypass, induce and KL over the samples, the share of them that pass."""
        rows = {}
        for k, each in enumerate(self.cones, 1):
            found = each.samples
            worst = {"bypass": found["bypass"].max(), "induce": found["induce"].min(), "kl": found["kl"].max()}
            row = {name: found[name].mean() for name in worst} | {f"worst {name}": at for name, at in worst.items()}
            rows[k] = {**row, "passing": (found["misses"] == "").mean(), "holds": each.holds}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("dimension")

    def figure(self, *, title: str) -> go.Figure:
        """Bypass, induce and KL of every sampled direction, by dimension."""
        rows = pd.concat({str(k): each.samples for k, each in enumerate(self.cones, 1)}, names=["dimension"])
        long = rows.reset_index("dimension").melt("dimension", ["bypass", "induce", "kl"], "score", "value")
        how: dict[str, Any] = {"title": title, "template": "refusal", "width": WIDTH, "height": HEIGHT}
        labels = {"value": "log odds (bypass, induce) or nats (kl)"}
        figure = px.box(
            long, x="dimension", y="value", facet_col="score", color="score", points="all", labels=labels, **how
        )
        figure.for_each_annotation(lambda facet: facet.update(text=facet.text.removeprefix("score=")))
        return figure.update_yaxes(matches=None, showticklabels=True).update_layout(showlegend=False)

    @property
    def best(self) -> Cone:
        """The largest cone that holds. Raises `ValueError` if not even a single direction does."""
        held = [each for each in self.cones if each.holds]
        must = "a single direction must hold at the limits before a cone can grow"
        got = f"one that misses {self.cones[0].samples['misses'].iloc[0]}"
        require(bool(held), NAME, must, got, "Train longer, or raise max_bypass or max_kl.")
        return held[-1]

    def directions(self, place: Provenance, /, *, every: bool = False, **settings: Any) -> DirectionSet:
        """The rows of the largest cone that holds, called "cone_1" and so on; with `every`, those of all cones in turn.

        Raises `ValueError` if no cone holds, unless `every`, and for a search that was read from a set.
        """
        require(self.training is not None, NAME, "the search must know its training", "none", "Use the set itself.")
        assert self.training is not None
        if not every:
            names = [f"cone_{row}" for row in range(1, len(self.best.basis) + 1)]
            return self.training.directions(names, self.best.basis, place, **settings)
        names = [f"cone_{len(each.basis)}_{row}" for each in self.cones for row in range(1, len(each.basis) + 1)]
        told = {**settings, "samples": [each.samples.to_dict("list") for each in self.cones]}
        return self.training.directions(names, torch.cat([each.basis for each in self.cones]), place, **told)


def share_inside(
    directions: Float[Tensor, "direction d_model"], basis: Float[Tensor, "rank d_model"], is_cone: bool
) -> Float[Tensor, " direction"]:
    """The squared length of each unit direction's part in the cone of orthonormal rows, or in their span.

    The nearest point of the cone has the coordinates that are not negative, and 0 for the others.
    """
    along = directions @ basis.T
    return (along.clamp(min=0) if is_cone else along).square().sum(-1)
