"""Is refusal one knob? For every pair of directions, a test of whether their trade-off curves are the same."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from ..plotting.look import heatmap, write_across
from ..plotting.pairs import pair_map
from ..stats import adjust_p
from .curves import curves, reach_on_data
from .outcomes import Outcomes

NO_RANGE = "no common range"
VERDICTS = ("equivalent", "different", "undecided", NO_RANGE)
NUMBERS = ("gap", "gap_low", "gap_high", "area", "area_low", "area_high", "p_equivalent", "p_different")
ALPHA = 0.05  # threshold of the adjusted p-values
_NONE = (float("nan"),) * (len(NUMBERS) - 1)


@dataclass(frozen=True, eq=False)
class KnobTest:
    """How far apart every pair of curves is, and the verdict for each pair at one or several margins.

    `pairs` has columns first, second, from, to (the common range of overall refusal rates), `NUMBERS` and verdict at
    the first margin. `verdicts` has a column per margin and the rows of `pairs`.
    """

    pairs: pd.DataFrame = field(repr=False)
    verdicts: pd.DataFrame = field(repr=False)

    def table(self) -> pd.DataFrame:
        """How many pairs have each verdict (rows) at each margin (columns)."""
        counts = {margin: verdict.value_counts() for margin, verdict in self.verdicts.items()}
        return pd.DataFrame(counts).reindex(list(VERDICTS)).fillna(0).astype(int).rename_axis(columns="margin")

    def summary(self) -> str:
        """One sentence: how many pairs can be compared, and how far apart their curves are."""
        gaps = self.pairs["gap"].dropna()
        found = f"{len(gaps)} of {len(self.pairs)} pairs have a common range"
        apart = f"median {gaps.median():.2f}, at most {gaps.max():.2f}"
        return f"{found}; largest difference of a pair: {apart}" if len(gaps) else found

    def by_kind(self, kinds: Mapping[str, str]) -> pd.DataFrame:
        """By pair of kinds of direction: how many pairs, how many compared, how many per verdict, and the median gap.

        Rows are `kind / kind`, the later in the alphabet first. The verdicts are those at the first margin;
        `within <margin>` counts the equivalent pairs at the others.
        """
        both = zip(self.pairs["first"].map(kinds), self.pairs["second"].map(kinds), strict=True)
        pair = pd.Series([" / ".join(sorted(each, reverse=True)) for each in both], self.pairs.index, name="pair")
        gap = self.pairs["gap"].groupby(pair)
        verdicts = pd.crosstab(pair, self.pairs["verdict"]).reindex(columns=list(VERDICTS), fill_value=0)
        found = pd.DataFrame({"pairs": gap.size(), "compared": gap.count()}).join(verdicts)
        for margin in self.verdicts.columns[1:]:
            found[f"within {margin:g}"] = (self.verdicts[margin] == VERDICTS[0]).groupby(pair).sum()
        return found.assign(**{"median largest difference": gap.median()})

    def figure(self, *, title: str, value: str = "largest difference of RR at equal refusal") -> go.Figure:
        """The largest difference between the curves of every two categories, as a map."""
        gaps = pair_map(self.pairs.set_index(["first", "second"])["gap"], diagonal=0.0)
        limits = 0.0, float(max(2 * self.verdicts.columns[0], self.pairs["gap"].max()))
        figure = heatmap(gaps.rename_axis(index=None, columns=None), title=title, value=value, limits=limits)
        return (
            figure if self.pairs["gap"].notna().any() else write_across(figure, f"{self.summary()}: nothing to compare")
        )


def knob_test(
    outcomes: Outcomes,
    margins: Sequence[float] = (0.10,),
    *,
    min_range: float = 0.3,
    n_draws: int = 1000,
    seed: int = 0,
) -> KnobTest:
    """The comparison of every pair of curves, over the overall refusal rates `from` .. `to` that both reach.

    `gap` is the largest difference of RR at equal overall refusal rate and `area` the mean absolute difference, with 95
    % bootstrap intervals that hold simultaneously over the grid. `p_equivalent`: two one-sided tests that the
    difference lies within the margin at every overall rate (Schuirmann 1987; Berger & Hsu 1996). `p_different`: the
    largest difference against what resampling alone produces. Both are adjusted over the pairs compared. The verdict is
    equivalent, else different, else undecided; a pair whose common range is narrower than `min_range` has "no common
    range" and NaN for all numbers. Give all directions strengths that are close together: strengths far apart cut the
    corners of a curve (by up to 0.04 of RR on planted curves).
    """
    drawn = curves(outcomes, outcomes.weights(n_draws, seed))
    lowest, highest = reach_on_data(outcomes)
    rows: list[tuple] = []
    for pair in combinations(range(len(outcomes.directions)), 2):
        start, end = float(lowest[list(pair)].max()), float(highest[list(pair)].min())
        difference = drawn[:, pair[0]] - drawn[:, pair[1]]
        difference = difference[:, ~difference[0].isnan()]
        meet = difference.shape[1] > 0 and end - start > min_range - 1e-9
        numbers, p_equivalent = _compare(difference, margins) if meet else (_NONE, [float("nan")] * len(margins))
        rows.append((*(outcomes.directions[each] for each in pair), start, end, *numbers, p_equivalent))
    names = [name for name in NUMBERS if name != "p_equivalent"]
    table = pd.DataFrame(rows, columns=["first", "second", "from", "to", *names, "p_values"])
    table["p_different"] = _adjusted(table["p_different"])
    within = [_adjusted(column) for column in zip(*table.pop("p_values"), strict=True)]
    table.insert(table.columns.get_loc("p_different"), "p_equivalent", within[0])
    empty, different = table["gap"].isna(), table["p_different"] < ALPHA
    verdicts = {
        margin: np.select([empty, p < ALPHA, different], [NO_RANGE, *VERDICTS[:2]], "undecided")
        for margin, p in zip(margins, within, strict=True)
    }
    found = pd.DataFrame(verdicts, columns=list(margins))
    return KnobTest(table.assign(verdict=found.iloc[:, 0]), found)


def _adjusted(p_values: Iterable[float]) -> np.ndarray:
    return adjust_p(torch.tensor([*p_values], dtype=torch.float64)).numpy()


def _compare(difference: Float[Tensor, "draw grid"], margins: Sequence[float]) -> tuple[tuple[float, ...], list[float]]:
    """(one pair's `NUMBERS` without `p_equivalent`, that for every margin), unadjusted; the first draw is the data."""
    observed, drawn = difference[0], difference[1:]
    moved = (drawn - observed).abs()
    largest = moved.amax(1)
    gap, area = float(observed.abs().max()), float(observed.abs().mean())
    spread, area_spread = (float(each.quantile(1 - ALPHA)) for each in (largest, moved.mean(1)))
    outside = [torch.stack([drawn >= margin, drawn <= -margin]).sum(1).max() for margin in margins]
    as_large = (largest >= gap - 1e-12).sum()
    *p_equivalent, p_different = ((1 + float(n)) / (1 + len(drawn)) for n in (*outside, as_large))
    gap_interval = (max(0.0, gap - spread), min(1.0, gap + spread))
    area_interval = (max(0.0, area - area_spread), min(1.0, area + area_spread))
    return (gap, *gap_interval, area, *area_interval, p_different), p_equivalent
