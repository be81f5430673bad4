"""How many of the best latents the categories share, against what chance would give."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import torch
from jaxtyping import Int
from torch import Tensor

from ..checks import require
from ..plotting.look import BLUE, HEIGHT, VERMILION, WIDTH
from .firing import Firing

NULLS = ("labels permuted", "same firing rates")
N_BANDS = 20  # of firing rate, within which latents are exchanged


@dataclass(frozen=True, eq=False)
class Overlap:
    """The top latents of every category, and in how many of those lists each latent is.

    `counts`: for the lists found (first row) and for each draw of the two null hypotheses. `lists`: latents by
    category.
    """

    lists: dict[str, list[int]] = field(repr=False)
    counts: dict[str, Int[Tensor, "draw latent"]] = field(repr=False)

    def table(self) -> pd.DataFrame:
        """Latents in at least one list and in all of them, found and (median, 95 %) under each null hypothesis.

        Joad et al. (2602.02132, Table 5) give both as shares of all latents.
        """
        n = len(self.lists)
        measures = {"in at least one list": 1, f"in all {n} lists": n}
        rows = {}
        for name, least in measures.items():
            row: dict[str, float] = {}
            for null, counts in self.counts.items():
                numbers = (counts >= least).sum(1).double().numpy()
                low, middle, high = np.quantile(numbers, [0.025, 0.5, 0.975])
                row |= {null: middle} if null == "found" else {null: middle, f"{null} low": low, f"{null} high": high}
            rows[name] = row | {"share of all latents": row["found"] / self.counts["found"].shape[1]}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("latents")

    def pairs(self) -> pd.DataFrame:
        """The share of each category's list (row) that is in that of each other one (column); NaN for an empty list."""
        sets = {name: set(each) for name, each in self.lists.items()}
        shares = {
            a: {b: len(own & other) / len(own) if own else float("nan") for b, other in sets.items()}
            for a, own in sets.items()
        }
        return pd.DataFrame.from_dict(shares, orient="index")

    def core(self, least: int) -> list[int]:
        """The latents in at least so many of the lists."""
        return torch.nonzero(self.counts["found"][0] >= least)[:, 0].tolist()

    def tail(self, name: str, most: int = 1) -> list[int]:
        """The latents of a category's list that are in at most so many lists, its own included; best first."""
        return [latent for latent in self.lists[name] if self.counts["found"][0, latent] <= most]

    def listed(self) -> pd.Series:
        """How many latents each category's list has: fewer than asked for if not enough have a positive separation."""
        return pd.Series({name: len(each) for name, each in self.lists.items()}, name="listed")

    def unique(self) -> pd.Series:
        """How many latents of each category's list are in no other."""
        once = self.counts["found"][0] == 1
        return pd.Series({name: int(once[each].sum()) for name, each in self.lists.items()}, name="unique")

    def figure(self) -> go.Figure:
        """In how many lists latents are: found, and the median under each null hypothesis."""
        n = len(self.lists)
        rows = [
            {"lists": m, "latents": float((counts >= m).sum(1).double().median()), "lists are": null}
            for null, counts in self.counts.items()
            for m in range(1, n + 1)
        ]
        title = f"Latents in at least so many of the {n} top lists"
        how: dict[str, Any] = {"title": title, "template": "refusal", "width": WIDTH, "height": HEIGHT, "log_y": True}
        return px.line(pd.DataFrame(rows), x="lists", y="latents", color="lists are", markers=True, **how)


@dataclass(frozen=True, eq=False)
class OverlapCurve:
    """Overlap against the length of the lists.

    `rows`: k; lists (how many a latent must be in); found; and by null hypothesis its median, low and high (95 %).
    """

    rows: pd.DataFrame = field(repr=False)

    def table(self) -> pd.DataFrame:
        """A row per number of lists and k."""
        return self.rows.set_index(["lists", "k"])

    def figure(self) -> go.Figure:
        """The number of latents in at least one list and in all, found and under each null hypothesis."""
        figure = go.Figure()
        look = {"found": "solid", NULLS[0]: "dash", NULLS[1]: "dot"}
        for (lists, own), colour in zip(self.rows.groupby("lists"), (BLUE, VERMILION), strict=False):
            for name, dash in look.items():
                middle = own["found"] if name == "found" else own[name]
                bars = None
                if name != "found":
                    ends = (own[f"{name} high"] - middle, middle - own[f"{name} low"])
                    bars = {"array": ends[0], "arrayminus": ends[1], "thickness": 1, "width": 3}
                line = {"color": colour, "dash": dash}
                shown = f"in at least {lists} list{'s' * (lists != 1)}: {name}"
                figure.add_scatter(x=own["k"], y=middle, name=shown, line=line, error_y=bars, mode="lines+markers")
        title = "Latents shared by the top lists, found and by chance (95 % of draws)"
        figure.update_layout(template="refusal", title=title, width=WIDTH, height=HEIGHT)
        figure.update_xaxes(title="latents per list, K", type="log", tickvals=self.rows["k"].unique())
        return figure.update_yaxes(title="latents")


def overlap_by_size(firing: Firing, sizes: Sequence[int], *, n_draws: int = 100, seed: int = 0) -> OverlapCurve:
    """`latent_overlap` for every k of `sizes`: latents in at least one list, and in all of them.

    Raises `ValueError` as `latent_overlap` does.
    """
    rows = []
    for k in sizes:
        table = latent_overlap(firing, k, n_draws=n_draws, seed=seed).table()
        for lists, (_, row) in zip((1, len(firing.names)), table.iterrows(), strict=True):
            rows.append({"k": k, "lists": lists, **row})
    return OverlapCurve(pd.DataFrame(rows))


def latent_overlap(firing: Firing, k: int, *, n_draws: int = 200, seed: int = 0) -> Overlap:
    """The overlap of the categories' `k` best latents, with two null hypotheses.

    *labels permuted*: refused and answered prompts of all sides are shuffled, so no latent tells them apart; what is
    shared then comes from the common answered side and from latents that rarely fire. *same firing rates*: each
    category's list is exchanged for random latents of the same overall firing rates (in `N_BANDS` bands of those that
    ever fire), so what is shared comes from preferring latents that fire often. Raises `ValueError` for a `k` or
    `n_draws` below 1.
    """
    for name, value in {"k": k, "n_draws": n_draws}.items():
        require(value >= 1, "latent_overlap", f"{name} must be at least 1", value, "Pass a larger one.")
    lists = {name: firing.top(name, k) for name in firing.names}
    generator = torch.Generator().manual_seed(seed)
    permuted = [_counted(_permuted(firing, generator), k) for _ in range(n_draws)]
    bands = _bands(firing)
    exchanged = [_exchanged(lists, bands, generator) for _ in range(n_draws)]
    found = _count([*lists.values()], len(bands))
    counts = {
        "found": found[None],
        "labels permuted": torch.stack(permuted),
        "same firing rates": torch.stack(exchanged),
    }
    return Overlap(lists, counts)


def _permuted(firing: Firing, generator: torch.Generator) -> Firing:
    fires = torch.cat([*firing.fires.values()])
    order = torch.randperm(len(fires), generator=generator)
    parts = order.split([len(each) for each in firing.fires.values()])
    return Firing({name: fires[rows] for name, rows in zip(firing.fires, parts, strict=True)}, firing.answered)


def _counted(firing: Firing, k: int) -> Int[Tensor, " latent"]:
    return _count([firing.top(name, k) for name in firing.names], firing.fires[firing.answered].shape[1])


def _count(lists: list[list[int]], n: int) -> Int[Tensor, " latent"]:
    return torch.bincount(torch.tensor([latent for each in lists for latent in each], dtype=torch.int64), minlength=n)


def _bands(firing: Firing) -> Int[Tensor, " latent"]:
    """The band of firing rate over all prompts of each latent; 0 for those that never fire."""
    fires = torch.cat([*firing.fires.values()])
    rates = fires.sum(0) / len(fires)
    ever = rates > 0
    edges = torch.quantile(rates[ever].double(), torch.linspace(0, 1, N_BANDS + 1, dtype=torch.float64)[1:-1])
    return torch.where(ever, 1 + torch.bucketize(rates.double(), edges), 0)


def _exchanged(
    lists: dict[str, list[int]], bands: Int[Tensor, " latent"], generator: torch.Generator
) -> Int[Tensor, " latent"]:
    """The counts of lists whose latents are replaced by random ones of the same bands."""
    drawn: list[list[int]] = []
    for each in lists.values():
        own: list[int] = []
        for band, n in zip(*bands[each].unique(return_counts=True), strict=True):
            members = torch.nonzero(bands == band)[:, 0]
            own += members[torch.randperm(len(members), generator=generator)[: int(n)]].tolist()
        drawn.append(own)
    return _count(drawn, len(bands))
