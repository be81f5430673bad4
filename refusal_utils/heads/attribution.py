"""Which heads write each category's direction: contributions of all heads, with intervals and adjusted p-values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from ..directions.direction_set import DirectionSet
from ..plotting.heads import head_maps, part_bars
from .contributions import contribution_intervals, contribution_p, contributions, per_category
from .overlap import Head, HeadOverlap, top_heads
from .shares import Shares


@dataclass(frozen=True, eq=False)
class HeadAttribution:
    """What every head contributes to each category's direction, in units of the residual stream.

    `low` and `high`: 95 % bootstrap intervals; `p_value`: adjusted over all heads of a category. `parts`: rows
    categories, columns heads, MLPs, biases and embedding, which sum to `gap`, the distance between the two means.
    `where`: hook, layer and position, for the axes of figures.
    """

    categories: tuple[str, ...]
    contribution: Float[Tensor, "layer head_index category"] = field(repr=False)
    low: Float[Tensor, "layer head_index category"] = field(repr=False)
    high: Float[Tensor, "layer head_index category"] = field(repr=False)
    p_value: Float[Tensor, "layer head_index category"] = field(repr=False)
    parts: pd.DataFrame = field(repr=False)
    gap: pd.Series = field(repr=False)
    where: str

    @classmethod
    def from_shares(
        cls, shares: Shares, labels: Sequence[str], directions: DirectionSet, *, n_draws: int = 1000, seed: int = 0
    ) -> "HeadAttribution":
        """The attribution that the shares along `directions` give (`component_shares`).

        `labels`: each prompt's category or "benign". `n_draws`: bootstrap draws for the intervals. Raises `ValueError`
        as `contributions` and `per_category` do.
        """
        names, place = directions.names, directions.provenance
        each = partial(per_category, labels=labels, categories=names)
        low, high = each(partial(contribution_intervals, n_draws=n_draws, seed=seed), shares.heads)
        parts = {name: each(contributions, values).numpy() for name, values in shares.parts().items()}
        return cls(
            categories=names,
            contribution=each(contributions, shares.heads),
            low=low,
            high=high,
            p_value=each(contribution_p, shares.heads),
            parts=pd.DataFrame(parts, names),
            gap=pd.Series(each(contributions, shares.total).numpy(), names, name="gap"),
            where=f"{place.hook}, layer {place.layer}, pos {place.pos}",
        )

    def top(self, k: int) -> dict[str, list[Head]]:
        """The `k` heads that contribute most to each category's direction, as (layer, head_index), largest first."""
        return {name: top_heads(self.contribution[..., c], k) for c, name in enumerate(self.categories)}

    def table(self, k: int = 5) -> pd.DataFrame:
        """The top `k` heads of every category with interval, adjusted p-value and share of the category's gap."""
        n_layers, n_heads, _ = self.contribution.shape
        axes = {"category": self.categories, "layer": range(n_layers), "head": range(n_heads)}
        numbers = ("contribution", "low", "high", "p_value")
        columns = {name: getattr(self, name).permute(2, 0, 1).flatten() for name in numbers}
        heads = pd.DataFrame(columns, pd.MultiIndex.from_product(axes.values(), names=axes)).astype(float)
        heads["share_of_gap"] = heads["contribution"] / self.gap.reindex(heads.index, level="category")
        return heads.loc[[(name, *head) for name, own in self.top(k).items() for head in own]]

    def heads_by_category(self) -> pd.DataFrame:
        """The contributions: rows heads (numbered layer by layer), columns categories."""
        return pd.DataFrame(self.contribution.flatten(0, 1).numpy(), columns=self.categories).rename_axis("head")

    def overlap(self, k: int, *, n_draws: int = 1000, seed: int = 0) -> HeadOverlap:
        """How far the categories share their top `k` heads, against random heads of the same layers."""
        return HeadOverlap.from_contribution(self.contribution, k, self.categories, n_draws, seed)

    def concentration(self) -> pd.DataFrame:
        """The share of the positive contributions that the top 1, 2, ... heads carry; columns are categories."""
        positive = self.contribution.flatten(0, 1).clamp(min=0).sort(dim=0, descending=True).values
        carried = positive.cumsum(0) / positive.sum(0).clamp(min=1e-12)
        sizes = pd.RangeIndex(1, len(carried) + 1, name="top heads")
        return pd.DataFrame(carried.numpy(), sizes, self.categories)

    def of_gap(self) -> pd.DataFrame:
        """`parts` as shares of each category's gap."""
        return self.parts.div(self.gap, axis=0)

    def parts_figure(self) -> go.Figure:
        """A stacked bar per category: the parts of its gap, without those that are zero throughout."""
        title, value = (
            "What writes the gap between refused and benign prompts",
            f"share of the gap along r, {self.where}",
        )
        return part_bars(self.of_gap(), title=title, value=value)

    def figure(self) -> go.Figure:
        """A map of layers and heads for each category, with a star where the adjusted p-value is below 0.05."""
        title = "What each attention head writes along each refusal direction"
        value = f"contribution along r, {self.where}"
        return head_maps(self.contribution, self.p_value, self.categories, title=title, value=value)
