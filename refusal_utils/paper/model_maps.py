"""The maps of cosines of several models: next to each other, and how much any two agree."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch

from ..directions.comparison import off_diagonal
from ..geometry.nulls import mantel_p, shuffled_correlations
from ..plotting.models import likeness_map
from ..plotting.pairs import heatmap_panels
from ..prompts.categories import CATEGORY_IDS
from ..stats import adjust_p
from .tables import CITATION, published_cosines

PUBLISHED = "Gemma-2-9b-it, published"
FEWEST = 4  # directions: the shuffles of fewer labels are too few for a test


@dataclass(frozen=True, eq=False)
class ModelMaps:
    """The map of cosines of every model, by its title, with all eleven categories as rows and columns.

    Categories that a model lacks are NaN. `names` are the models' short names, in the same order.
    """

    maps: Mapping[str, pd.DataFrame] = field(repr=False)
    names: tuple[str, ...]

    def table(self) -> pd.DataFrame:
        """A row per model and the published map: pairs, mean, least and highest cosine."""
        found = {PUBLISHED: published_cosines(), **dict(zip(self.names, self.maps.values(), strict=True))}
        return pd.DataFrame({name: _pairs(each).agg(["count", "mean", "min", "max"]) for name, each in found.items()}).T

    def figure(self) -> go.Figure:
        """The published map and those of the models, a panel each."""
        published = {f"Gemma-2-9b-it, layer 20, pos -2 ({CITATION}, Table 1)": published_cosines()}
        title = "Cosines between the eleven refusal directions, model by model"
        return heatmap_panels({**published, **self.maps}, value="cosine, resid_pre", title=title, pairwise=True)

    def likeness(self, n_draws: int = 10_000, seed: int = 0) -> "MapLikenesses":
        """Every two of the maps, the published one included, compared with `mantel_p` over what both have."""
        found = {PUBLISHED: published_cosines(), **dict(zip(self.names, self.maps.values(), strict=True))}
        rows = [
            (first, second, *_compare(found[first], found[second], n_draws, seed))
            for first, second in combinations(found, 2)
        ]
        columns = ["first", "second", "pairs", "correlation", "chance", "p"]
        table = pd.DataFrame(rows, columns=columns).dropna(subset=["p"], ignore_index=True)
        adjusted: Any = adjust_p(torch.tensor(table["p"].to_numpy(), dtype=torch.float64)) if len(table) else []
        return MapLikenesses(table.assign(**{"p adjusted": list(map(float, adjusted))}))


@dataclass(frozen=True, eq=False)
class MapLikenesses:
    """How much the cosines of two models agree, for every two.

    `rows` has columns first, second, pairs (compared), correlation, chance (what 95 % of the shuffled maps stay below),
    p (Mantel's) and p adjusted (for the number of comparisons, at a fixed rate of false discoveries).
    """

    rows: pd.DataFrame = field(repr=False)

    def table(self) -> pd.DataFrame:
        """A row per two models."""
        return self.rows.set_index(["first", "second"])

    def figure(self) -> go.Figure:
        """The correlations as a square map."""
        names = list(dict.fromkeys([*self.rows["first"], *self.rows["second"]]))
        square = pd.DataFrame(float("nan"), index=names, columns=names)
        for row in self.rows.itertuples():
            square.loc[row.first, row.second] = square.loc[row.second, row.first] = row.correlation
        for name in names:
            square.loc[name, name] = 1.0
        return likeness_map(square, title="How alike the maps of cosines of two models are")


def _pairs(table: pd.DataFrame) -> pd.Series:
    values = torch.tensor(table.reindex(index=list(CATEGORY_IDS), columns=list(CATEGORY_IDS)).to_numpy(dtype=float))
    return pd.Series(off_diagonal(values).numpy())


def _compare(first: pd.DataFrame, second: pd.DataFrame, n_draws: int, seed: int) -> tuple[float, ...]:
    """(pairs, correlation, 95th percentile by chance, p) over the categories of both; NaN if they are too few."""
    known = [
        name for name in CATEGORY_IDS if all(name in each and each[name].notna().any() for each in (first, second))
    ]
    n_pairs = len(known) * (len(known) - 1) // 2
    if len(known) < FEWEST:
        return (n_pairs, *(float("nan"),) * 3)
    own, other = (torch.tensor(each.loc[known, known].to_numpy(dtype=float)) for each in (first, second))
    found = shuffled_correlations(own, other, n_draws, seed)
    return n_pairs, float(found[0]), float(found[1:].quantile(0.95)), mantel_p(own, other, n_draws, seed)
