"""The cosines of all pairs of categories, with their uncertainty, their null hypotheses and the published map."""

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from ..directions.comparison import centred_cosines, off_diagonal, whitened_cosines
from ..directions.direction_set import DirectionSet
from ..directions.estimation import mean_directions
from ..plotting.look import titles
from ..plotting.pairs import heatmap_panels, pair_intervals, pair_map, pair_scatter
from ..stats import adjust_p, bootstrap_counts
from .clusters import same_cluster_map
from .gram import Contrasts, States, contrasts, cosines, inner_products
from .nulls import DISCOVERY, distinctness_p, mantel_p, relatedness_p, shuffled_correlations
from .uncertainty import cosine_intervals


@dataclass(frozen=True, eq=False)
class PairTable:
    """The cosine of every pair of categories in several readings; see `pair_table`.

    `by_pair` has the index `first`, `second` and the columns
    `raw`, `corrected` (at most 1, at least -1), `low`, `high`: see `CosineIntervals`;
    `centred`: without what all directions share; `whitened`: in the metric of the spread within sides;
    `p distinct`, `p related`: against the nulls of `nulls`, adjusted for the number of pairs.
    """

    by_pair: pd.DataFrame
    sample: Contrasts = field(repr=False)
    seed: int = 0

    def table(self) -> pd.DataFrame:
        """`by_pair` with a column `pair` of titles, from the lowest corrected cosine to the highest."""
        named = self.by_pair.sort_values("corrected")
        named.insert(0, "pair", [" / ".join(titles(list(pair))) for pair in named.index])
        return named

    def figure(self, model: str, place: str) -> go.Figure:
        """A row per pair: its corrected cosine with the 95 % interval, and its plain cosine."""
        return pair_intervals(
            self.table(),
            title=f"The {len(self.by_pair)} cosines between directions ({model} model)",
            x=f"cosine, {place}",
        )

    @property
    def n_distinct(self) -> int:
        """How many pairs are distinct at 5 % false discoveries."""
        return int((self.by_pair["p distinct"] < DISCOVERY).sum())

    @property
    def n_related(self) -> int:
        """How many pairs are more alike than random directions, at 5 % false discoveries."""
        return int((self.by_pair["p related"] < DISCOVERY).sum())

    def numbers(self) -> dict[str, float]:
        """One number for each question that the table answers."""
        corrected = self.by_pair["corrected"]
        return {
            "mean cosine": float(corrected.mean()),
            "lowest cosine": float(corrected.min()),
            "highest cosine": float(corrected.max()),
            "interval width": float((self.by_pair["high"] - self.by_pair["low"]).median()),
            "distinct pairs": float(self.n_distinct),
            "related pairs": float(self.n_related),
            **{f"{name} map, like plain": self.likeness(self.by_pair[name]) for name in ("centred", "whitened")},
        }

    def likeness(self, other: pd.Series) -> float:
        """The correlation between the plain cosines and those of another map, over the pairs in `other`."""
        return float(np.corrcoef(self.by_pair.loc[other.index, "raw"], other)[0, 1])

    def metrics(self) -> dict[str, pd.DataFrame]:
        """The map in three metrics: plain, centred, whitened."""
        columns = {"plain": "raw", "centred": "centred", "whitened": "whitened"}
        return {name: pair_map(self.by_pair[column]) for name, column in columns.items()}

    def metrics_figure(self, model: str, place: str) -> go.Figure:
        """The three maps, one below the other."""
        return heatmap_panels(
            self.metrics(), value="cosine", title=f"Cosines in three metrics ({model} model, {place})"
        )


def pair_table(
    refused: States,
    answered: Float[Tensor, "answered_prompt d_model"],
    n_draws: int = 1000,
    n_null: int = 1000,
    seed: int = 0,
) -> PairTable:
    """The cosines of all pairs: intervals from `n_draws` draws, p-values from `n_null` (related: ten times that)."""
    sample = contrasts(refused, answered)
    found = cosine_intervals(sample, n_draws, seed=seed)
    units = mean_directions(refused, answered)
    residuals = torch.cat([side - side.mean(0) for side in (*refused.values(), answered)])
    maps = {**vars(found), "centred": centred_cosines(units), "whitened": whitened_cosines(units, residuals)}
    columns = {name: off_diagonal(values) for name, values in maps.items()}
    columns["corrected"] = columns["corrected"].clamp(
        -1, 1
    )  # of two directions that are nearly all noise it may exceed 1
    columns["p distinct"] = adjust_p(distinctness_p(sample, n_null, seed))
    columns["p related"] = adjust_p(relatedness_p(sample, 10 * n_null, seed))
    index = pd.MultiIndex.from_tuples(combinations(refused, 2), names=["first", "second"])
    return PairTable(pd.DataFrame({name: own.numpy() for name, own in columns.items()}, index=index), sample, seed)


@dataclass(frozen=True, eq=False)
class MapLikeness:
    """How well two maps of cosines agree; see `compare_with_map`.

    `correlation` of the pairs, its 95 % bootstrap interval over prompts (`low` to `high`), Mantel's `p`, and `chance`,
    the 95th percentile of the correlations that the Mantel test finds in shuffled maps.
    """

    correlation: float
    low: float
    high: float
    p: float
    chance: float
    n_draws: int
    pairs: pd.DataFrame = field(repr=False)

    def __str__(self) -> str:
        """The correlation with its interval."""
        return f"{self.correlation:.2f} (95 % interval {self.low:.2f} to {self.high:.2f})"

    def table(self) -> pd.DataFrame:
        """The table of pairs with a column `published`."""
        return self.pairs

    def beside_clusters(self, pairs: PairTable, directions: DirectionSet) -> pd.DataFrame:
        """The numbers of this comparison and of one of `pairs` with the two published clusters, as rows.

        Further columns are layer and pos of the directions, and the notes on their model.
        """
        clusters = compare_with_map(pairs, same_cluster_map(), self.n_draws)
        rows = pd.DataFrame({"published map": self.numbers(), "two clusters": clusters.numbers()}).T.round(4)
        place = directions.provenance
        return rows.assign(layer=place.layer, pos=place.pos, **place.model)

    def numbers(self) -> dict[str, float]:
        """Every number of the comparison, and `n`, the number of pairs compared."""
        found = {name: getattr(self, name) for name in ("correlation", "low", "high", "p", "chance")}
        return {**found, "n": int(self.pairs["published"].count())}

    def figure(self, model: str, place: str, other: str) -> go.Figure:
        """A point per pair: its published cosine against its plain one here; `other` names the published map."""
        title = f"The {self.pairs['published'].count()} pairs: {model} model against the published map, r = {self}"
        return pair_scatter(self.pairs, title=title, x=f"cosine, {other}", y=f"cosine, {place} ({model} model)")


def compare_with_map(
    pairs: PairTable, published: pd.DataFrame, n_draws: int = 1000, n_deals: int = 10_000
) -> MapLikeness:
    """How well the plain cosines agree with a published map, over the categories that both have.

    Of the published map the part above the diagonal is read.
    """
    common = [name for name in pairs.sample.categories if name in published.index]
    own = torch.tensor([pairs.sample.categories.index(name) for name in common])
    theirs = torch.tensor(published.loc[common, common].to_numpy(), dtype=torch.float64)
    index = pd.MultiIndex.from_tuples(combinations(common, 2), names=pairs.by_pair.index.names)
    published_pairs = pd.Series(off_diagonal(theirs).numpy(), index=index)
    counts = bootstrap_counts(pairs.sample.strata, n_draws, pairs.seed)
    drawn = cosines(inner_products(pairs.sample, counts))[:, own][:, :, own]
    correlations = [np.corrcoef(each, published_pairs)[0, 1] for each in off_diagonal(drawn).numpy()]
    low, high = np.quantile(correlations, [0.025, 0.975])
    ours = pairs.sample.cosines[own][:, own]
    p = mantel_p(ours, theirs, n_deals, pairs.seed)
    chance = float(shuffled_correlations(ours, theirs, n_deals, pairs.seed)[1:].quantile(0.95))
    table = pairs.table()
    table.insert(1, "published", published_pairs)
    return MapLikeness(pairs.likeness(published_pairs), float(low), float(high), p, chance, n_draws, table)
