"""Do the categories use the same heads? Top heads, their overlap, and the overlap that their layers alone explain."""

from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..checks import require
from ..directions.comparison import off_diagonal
from ..plotting.look import heatmap

Head = tuple[int, int]  # layer, head_index


def top_heads(contribution: Float[Tensor, "layer head_index"], k: int) -> list[Head]:
    """(layer, head_index) of the `k` heads with the largest contribution, largest first; all if there are fewer.

    Raises `ValueError` if `k` is below 1.
    """
    require(k >= 1, "top_heads", "k must be at least 1", k, "Ask for 1 head or more.")
    order = contribution.flatten().argsort(descending=True)[:k]
    return [divmod(index, contribution.shape[1]) for index in order.tolist()]


@dataclass(frozen=True, eq=False)
class HeadOverlap:
    """How many of their top `k` heads every two categories share: heads in both over heads in either (Jaccard).

    `null`: the mean overlap over all pairs if each category's top heads were other heads of the same layers. It is
    matched by layer because late layers write more for every category, so their heads overlap by chance.
    """

    k: int
    categories: tuple[str, ...]
    jaccard: Float[Tensor, "category category"] = field(repr=False)
    null: Float[Tensor, " draw"] = field(repr=False)

    @classmethod
    def from_contribution(
        cls,
        contribution: Float[Tensor, "layer head_index category"],
        k: int,
        categories: tuple[str, ...],
        n_draws: int = 1000,
        seed: int = 0,
    ) -> "HeadOverlap":
        """The overlap of the categories' `k` largest contributions (of all, if there are fewer heads).

        Raises `ValueError` if `k` is below 1.
        """
        chosen = torch.zeros(contribution.shape, dtype=torch.bool)
        for c in range(len(categories)):
            for head in top_heads(contribution[..., c], k):
                chosen[(*head, c)] = True
        generator = torch.Generator().manual_seed(seed)
        order = torch.rand(n_draws, *contribution.shape, generator=generator).argsort(2)
        dealt = torch.gather(chosen.expand(n_draws, -1, -1, -1), 2, order)
        null = off_diagonal(_jaccard(dealt.flatten(1, 2))).mean(-1).float()
        return cls(int(chosen[..., 0].sum()), categories, _jaccard(chosen.flatten(0, 1)).float(), null)

    @property
    def observed(self) -> float:
        """The mean overlap over all pairs of categories."""
        return float(off_diagonal(self.jaccard).mean())

    @property
    def p_value(self) -> float:
        """The share of the null that overlaps at least as much as the categories do (one-sided)."""
        return (1 + int((self.null >= self.observed).sum())) / (1 + len(self.null))

    def summary(self) -> str:
        """One sentence: the mean overlap, the null and the p-value."""
        null = f"{self.null.mean():.2f} (95 % below {self.null.quantile(0.95):.2f})"
        return f"mean overlap {self.observed:.2f}; random heads of the same layers {null}, p = {self.p_value:.3f}"

    def table(self) -> pd.DataFrame:
        """The overlap of every two categories."""
        return pd.DataFrame(self.jaccard.numpy(), self.categories, self.categories)

    def figure(self) -> go.Figure:
        """A map of the overlaps from 0 to 1."""
        value = f"Jaccard overlap of the top {self.k} heads"
        return heatmap(self.table(), title="Top heads that two categories share", value=value, limits=(0, 1))


def _jaccard(chosen: Bool[Tensor, "*draw component category"]) -> Float[Tensor, "*draw category category"]:
    members = chosen.double()
    shared, size = members.mT @ members, members.sum(-2)
    return shared / (size[..., :, None] + size[..., None, :] - shared)
