"""Directions of the same prompts in several languages: how similar they are, and how similar they could be."""

from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..checks import require
from ..directions import DirectionSet, Provenance, cosine_matrix, normalize
from ..plotting.look import heatmap

MIN_PAIRS = 4


@dataclass(frozen=True, eq=False)
class ParallelStates:
    """States of parallel prompts: pair i of one language translates pair i of any other.

    `refused` and `answered` are the two prompts of a pair. Raises `ValueError` for fewer than 4 pairs.
    """

    languages: tuple[str, ...]
    refused: Float[Tensor, "category pair d_model"] = field(repr=False)
    answered: Float[Tensor, "category pair d_model"] = field(repr=False)

    def __post_init__(self) -> None:
        """Raise `ValueError` for too few pairs."""
        n_pairs, must = self.refused.shape[1], f"there must be at least {MIN_PAIRS} pairs of prompts"
        require(n_pairs >= MIN_PAIRS, "ParallelStates", must, n_pairs, "Add pairs.")

    @property
    def differences(self) -> Float[Tensor, "category pair d_model"]:
        """Refused minus answered prompt of every pair, in float64."""
        return self.refused.double() - self.answered.double()

    def directions(self, place: Provenance, pairs: Int[Tensor, " kept"] | None = None) -> DirectionSet:
        """The difference in means of every language, over all `pairs` or those with these indices."""
        means = (self.differences if pairs is None else self.differences[:, pairs]).mean(1).float()
        return DirectionSet(self.languages, normalize(means), means.norm(dim=-1), place)

    def cosines(self) -> pd.DataFrame:
        """Cosines between the languages' directions, each from all pairs: both have seen the same prompts."""
        return self._frame(cosine_matrix(self.differences.mean(1).float()))

    def across_halves(self, n_splits: int = 200, seed: int = 0) -> pd.DataFrame:
        """Cosines between one language's direction from half of the pairs and another's from the other half.

        They are averaged over random splits. The diagonal shows how well a language agrees with itself. Two directions
        from the same pairs also agree in what their prompts happen to be about, which disjoint halves rule out.
        """
        draw = torch.Generator().manual_seed(seed)
        differences, n_pairs = self.differences, self.refused.shape[1]
        total = torch.zeros(len(self.languages), len(self.languages), dtype=torch.float64)
        for _ in range(n_splits):
            order = torch.randperm(n_pairs, generator=draw)
            halves = order[: n_pairs // 2], order[n_pairs // 2 :]
            first, second = (normalize(differences[:, half].mean(1)).double() for half in halves)
            total += first @ second.T
        return self._frame(((total + total.T) / (2 * n_splits)).float())

    def table(self) -> pd.DataFrame:
        """A row per pair of languages: cosine, cosine across halves, ceiling, and their ratio.

        The ceiling is the geometric mean of the two languages' own cosines across halves; NaN if one is not positive.
        """
        whole, halves = self.cosines(), self.across_halves()
        rows = {}
        for number, first in enumerate(self.languages):
            for second in self.languages[number + 1 :]:
                across, own = halves.loc[first, second], halves.loc[first, first] * halves.loc[second, second]
                ceiling = own**0.5 if min(halves.loc[first, first], halves.loc[second, second]) > 0 else float("nan")
                rows[first, second] = (whole.loc[first, second], across, ceiling, across / ceiling)
        columns = ["cosine", "across halves", "ceiling", "of ceiling"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns).pipe(_named_rows)

    def figure(self, *, title: str) -> go.Figure:
        """A map of the cosines across halves."""
        return heatmap(self.across_halves(), value="cosine across halves", title=title)

    def _frame(self, matrix: Float[Tensor, "category category"]) -> pd.DataFrame:
        names = list(self.languages)
        return pd.DataFrame(matrix.numpy(), pd.Index(names, name="language"), pd.Index(names, name="with"))


def _named_rows(table: pd.DataFrame) -> pd.DataFrame:
    table.index = pd.MultiIndex.from_tuples(table.index, names=["language", "with"])
    return table
