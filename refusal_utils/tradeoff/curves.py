"""Trade-off curves: a direction's refusal rate on harmful prompts (RR) at every overall refusal rate.

The overall rate is the mean of RR and the rate on benign prompts (ORR), whatever strength produces it. (RR as a
function of ORR would be vertical where ORR is 0.) A curve ends where its direction moves the model no further. All
uncertainty comes from resampling prompts, the same ones for every direction and strength.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..plotting.tradeoff import tradeoff_figure
from ..stats import percentile_interval
from .outcomes import Outcomes

GRID = torch.linspace(0, 1, 41, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class TradeoffCurves:
    """The curves of some directions with their bands, and how far each direction reaches.

    `bands` has columns direction, overall (refusal rate), RR, low and high (pointwise intervals); ORR at a point is
    2 overall - RR. `reach` has per direction the lowest (`from`) and the highest (`to`) overall refusal rate, each with
    low, high and the weakest strength that produces it. `drawn` is RR on the data, then on every draw of prompts.
    """

    bands: pd.DataFrame = field(repr=False)
    reach: pd.DataFrame = field(repr=False)
    drawn: Float[Tensor, "draw direction grid"] = field(repr=False)

    def table(self) -> pd.DataFrame:
        """How far each direction reaches."""
        return self.reach

    def span(self, kinds: Mapping[str, str]) -> pd.DataFrame:
        """How far the directions of each kind reach from lowest to highest: the least, median and largest span."""
        span = self.reach["to"] - self.reach["from"]
        return span.groupby(self.reach.index.map(kinds)).agg(["min", "median", "max"])

    def advantage(self, name: str) -> pd.DataFrame:
        """By other direction: how much higher the RR of `name` is at equal overall refusal, over the common range.

        Columns: more (the mean difference), low and high (95 % interval over prompts, the same for both), from and to
        (overall refusal rates). At one overall rate, a higher RR means an ORR that is lower by as much. NaN without a
        common range.
        """
        ends, names = self.reach[["from", "to"]], list(self.reach.index)
        own = self.drawn[:, names.index(name)]
        rows = {}
        for row, other in enumerate(names):
            if other != name:
                more = (own - self.drawn[:, row]).nanmean(-1)
                common = ends.loc[[name, other], "from"].max(), ends.loc[[name, other], "to"].min()
                rows[other] = (float(more[0]), *(float(edge) for edge in percentile_interval(more[1:])), *common)
        return pd.DataFrame.from_dict(rows, orient="index", columns=["more", "low", "high", "from", "to"])

    def figure(self, rates: pd.DataFrame, *, title: str, published: Mapping[str, pd.DataFrame]) -> go.Figure:
        """The curves, and the points of `rates` (from `rate_table`) for these directions and any others."""
        return tradeoff_figure(self.bands, rates.reset_index(), title=title, published=published)


def tradeoff_curves(outcomes: Outcomes, n_draws: int = 1000, seed: int = 0) -> TradeoffCurves:
    """The curves of all directions with 95 % bootstrap intervals, and how far each reaches.

    The strength of an extreme is chosen on the data, not in every draw, since the largest of many noisy rates is biased
    upwards.
    """
    weights = outcomes.weights(n_draws, seed)
    drawn = curves(outcomes, weights)
    low, high = percentile_interval(drawn[1:])
    parts = []
    for row, name in enumerate(outcomes.directions):
        values = {"overall": GRID, "RR": drawn[0, row], "low": low[row], "high": high[row]}
        part = pd.DataFrame({key: value.numpy() for key, value in values.items()}).dropna()
        parts.append(part.assign(direction=name))
    return TradeoffCurves(pd.concat(parts, ignore_index=True), _reach(outcomes, weights), drawn)


def curves(outcomes: Outcomes, weights: Float[Tensor, "draw prompt"]) -> Float[Tensor, "draw direction grid"]:
    """RR of every direction at every overall refusal rate of `GRID`, for every draw: straight lines between points.

    NaN beyond the direction's reach, which is measured on the data and the same for every draw. A draw that falls short
    of it is extended towards the corner at which nothing or everything is refused, where every curve would end.
    """
    refused, overall = outcomes.rates(weights)[0], outcomes.overall(weights)
    found = torch.stack(
        [_interpolate(overall[:, row, usable], refused[:, row, usable]) for row, usable in enumerate(outcomes.usable)],
        dim=1,
    )
    lowest, highest = reach_on_data(outcomes)[:, :, None]
    return found.masked_fill((lowest - 1e-9 > GRID) | (highest + 1e-9 < GRID), float("nan"))


def reach_on_data(outcomes: Outcomes) -> Float[Tensor, "side direction"]:
    """The lowest and the highest overall refusal rate of each direction, on the data."""
    overall = outcomes.overall(outcomes.weights(0))[0]
    return torch.stack([overall[torch.arange(len(at)), at] for at in _extremes(outcomes)])


def _interpolate(
    overall: Float[Tensor, "draw coefficient"], refused: Float[Tensor, "draw coefficient"]
) -> Float[Tensor, "draw grid"]:
    """The polyline from (0, 0) through each draw's points to (1, 1), read at `GRID`."""
    x, y = (np.pad(each.numpy(), ((0, 0), (1, 1)), constant_values=(0, 1)) for each in (overall, refused))
    order = np.lexsort((y, x), axis=1)
    x, y = (np.take_along_axis(each, order, axis=1) for each in (x, y))
    return torch.tensor(np.stack([np.interp(GRID, *draw) for draw in zip(x, y, strict=True)]))


def _reach(outcomes: Outcomes, weights: Float[Tensor, "draw prompt"]) -> pd.DataFrame:
    drawn = outcomes.overall(weights)
    table = pd.DataFrame(index=pd.Index(outcomes.directions, name="direction"))
    for name, at in zip(("from", "to"), _extremes(outcomes), strict=True):
        rate = drawn[:, torch.arange(len(at)), at]
        low, high = percentile_interval(rate[1:])
        for edge, values in (("", rate[0]), (" low", low), (" high", high)):
            table[f"{name}{edge}"] = values.numpy()
        table[f"{name} strength"] = np.array(outcomes.strengths)[at.numpy()]
    return table


def _extremes(outcomes: Outcomes) -> tuple[Int[Tensor, " direction"], Int[Tensor, " direction"]]:
    """The points at which each direction's overall rate is lowest and highest; ties go to the weakest strength."""
    overall = outcomes.overall(outcomes.weights(0))[0]
    weakest = np.argsort(np.abs(outcomes.strengths), kind="stable")
    signed = [torch.where(outcomes.usable, sign * overall, torch.inf)[:, weakest].numpy() for sign in (1, -1)]
    lowest, highest = (torch.from_numpy(weakest[values.round(9).argmin(1)]) for values in signed)
    return lowest, highest
