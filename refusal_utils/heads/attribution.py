"""Which heads write each category's direction: contributions of all heads, with intervals and adjusted p-values."""

from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from ..directions.direction_set import DirectionSet
from ..model.chat_model import ChatModel
from ..plotting.heads import head_maps
from .contributions import contribution_intervals, contribution_p, contributions, per_category
from .overlap import HeadOverlap, top_heads
from .shares import Shares, component_shares

Head = tuple[int, int]


def attribute_heads(
    chat: ChatModel, prompts: pd.DataFrame, directions: DirectionSet, *, n_draws: int = 1000, seed: int = 0
) -> "HeadAttribution":
    """The exact contribution of every head to each direction, over the refused and the benign prompts of a draw.

    `prompts` has columns text and category. `n_draws`: bootstrap draws for the intervals. Raises `ValueError` as
    `component_shares` and `contributions` do.
    """
    read_at = directions.provenance
    pos = chat.decision_pos if read_at.pos is None else read_at.pos
    shares = component_shares(chat, list(prompts["text"]), directions.vectors, layer=read_at.layer, pos=pos)
    where = f"resid_pre, layer {read_at.layer}, pos {pos}"
    labels = list(prompts["category"])
    return HeadAttribution.from_shares(shares, labels, directions.names, where, n_draws=n_draws, seed=seed)


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
        cls,
        shares: Shares,
        labels: list[str],
        categories: tuple[str, ...],
        where: str,
        *,
        n_draws: int = 1000,
        seed: int = 0,
    ) -> "HeadAttribution":
        """The attribution that the prompts' shares give; `labels` holds each prompt's category or "benign"."""

        def intervals(refused: Tensor, answered: Tensor) -> Tensor:
            return torch.stack(contribution_intervals(refused, answered, n_draws, seed=seed))

        def each(statistic, values: Tensor) -> Tensor:
            return per_category(statistic, values, labels, categories)

        parts = {name: each(contributions, values).numpy() for name, values in shares.parts().items()}
        gap = pd.Series(each(contributions, shares.total).numpy(), categories, name="gap")
        low, high = each(intervals, shares.heads)
        p_value = each(contribution_p, shares.heads)
        contribution = each(contributions, shares.heads)
        return cls(categories, contribution, low, high, p_value, pd.DataFrame(parts, categories), gap, where)

    def top(self, k: int) -> dict[str, list[Head]]:
        """The `k` heads that contribute most to each category's direction, as (layer, head_index), largest first."""
        found = {name: top_heads(self.contribution[..., c], k).tolist() for c, name in enumerate(self.categories)}
        return {name: [(layer, head) for layer, head in own] for name, own in found.items()}

    def table(self, k: int = 5) -> pd.DataFrame:
        """The top `k` heads of every category with interval, adjusted p-value and share of the category's gap."""
        n_layers, n_heads, _ = self.contribution.shape
        axes = {"category": self.categories, "layer": range(n_layers), "head": range(n_heads)}
        columns = {name: getattr(self, name).permute(2, 0, 1).flatten() for name in ("contribution", "low", "high")}
        columns["p_value"] = self.p_value.permute(2, 0, 1).flatten()
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
        """The share of the positive contributions that the top 1, 2, ... heads carry: rows numbers, columns categories."""
        positive = self.contribution.flatten(0, 1).clamp(min=0).sort(dim=0, descending=True).values
        carried = positive.cumsum(0) / positive.sum(0).clamp(min=1e-12)
        sizes = pd.RangeIndex(1, len(carried) + 1, name="top heads")
        return pd.DataFrame(carried.numpy(), sizes, self.categories)

    def figure(self) -> go.Figure:
        """A map of layers and heads for each category, with a star where the adjusted p-value is below 0.05."""
        title = "What each attention head writes along each refusal direction"
        value = f"contribution along r, {self.where}"
        return head_maps(self.contribution, self.p_value, self.categories, title=title, value=value)
