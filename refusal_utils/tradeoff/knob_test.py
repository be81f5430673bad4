"""Is refusal one knob? A test for every pair of directions whether their trade-off curves are the same."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from ..plotting.look import heatmap
from ..plotting.pairs import pair_map
from ..stats import adjust_p
from .curves import curves, reach_on_data
from .outcomes import Outcomes

NO_RANGE = "no common range"
VERDICTS = ("equivalent", "different", "undecided", NO_RANGE)
NUMBERS = ("gap", "gap_low", "gap_high", "area", "area_low", "area_high", "p_equivalent", "p_different")


@dataclass(frozen=True, eq=False)
class KnobTest:
    """How far apart every pair of curves is, and the verdict for each pair at this margin.

    `pairs` has columns first, second, from, to (the common range of overall refusal rates), `NUMBERS` and verdict.
    """

    pairs: pd.DataFrame = field(repr=False)
    margin: float

    def table(self) -> pd.DataFrame:
        """How many pairs have each verdict."""
        return self.counts().rename(f"pairs at margin {self.margin:g}").to_frame()

    def counts(self) -> pd.Series:
        """The number of pairs by verdict, in the order of `VERDICTS`."""
        return self.pairs["verdict"].value_counts().reindex(list(VERDICTS), fill_value=0)

    def by_kind(self, kinds: Mapping[str, str]) -> pd.DataFrame:
        """The pairs of every two kinds of direction: how many, how many compared, by verdict, and the median gap.

        `kinds` gives the kind of every direction. Rows are `kind / kind`, the later in the alphabet first.
        """
        both = zip(self.pairs["first"].map(kinds), self.pairs["second"].map(kinds), strict=True)
        pair = pd.Series([" / ".join(sorted(each, reverse=True)) for each in both], self.pairs.index, name="pair")
        gap = self.pairs["gap"].groupby(pair)
        verdicts = pd.crosstab(pair, self.pairs["verdict"]).reindex(columns=list(VERDICTS), fill_value=0)
        found = pd.DataFrame({"pairs": gap.size(), "compared": gap.count()}).join(verdicts)
        return found.assign(**{"median largest difference": gap.median()})

    def figure(self, *, title: str, value: str = "largest difference of RR at equal refusal") -> go.Figure:
        """The largest difference between the curves of every two categories, as a map."""
        gaps = pair_map(self.pairs.set_index(["first", "second"])["gap"], diagonal=0.0)
        return heatmap(gaps, title=title, value=value, limits=(0, 0.5))


def knob_test(
    outcomes: Outcomes,
    *,
    margin: float = 0.10,
    min_range: float = 0.3,
    n_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> KnobTest:
    """The comparison of every pair of curves, over the overall refusal rates `from` .. `to` that both reach.

    `gap` is the largest difference of RR at equal overall refusal rate and `area` the mean absolute difference, with
    bootstrap intervals that hold simultaneously over the grid. `p_equivalent`: two one-sided tests that the difference
    lies within `margin` at every overall rate (Schuirmann 1987; intersection-union, Berger & Hsu 1996). `p_different`:
    the largest difference against what resampling alone produces. Both are adjusted over the pairs compared (Benjamini
    & Hochberg 1995). The verdict at 1 - level is equivalent, else different, else undecided. A pair whose common range
    is narrower than `min_range` has "no common range" and NaN for all numbers. Strengths far apart cut the corners of a
    curve, by up to 0.04 of RR on planted curves, so give all directions strengths that are close together.
    """
    drawn = curves(outcomes, outcomes.weights(n_draws, seed))
    lowest, highest = reach_on_data(outcomes)
    rows: list[tuple] = []
    for pair in combinations(range(len(outcomes.directions)), 2):
        start, end = float(lowest[list(pair)].max()), float(highest[list(pair)].min())
        difference = drawn[:, pair[0]] - drawn[:, pair[1]]
        difference = difference[:, ~difference[0].isnan()]
        meet = difference.shape[1] > 0 and end - start > min_range - 1e-9
        found = _compare(difference, margin, level) if meet else (float("nan"),) * len(NUMBERS)
        rows.append((*(outcomes.directions[each] for each in pair), start, end, *found))
    table = pd.DataFrame(rows, columns=["first", "second", "from", "to", *NUMBERS])
    for name in ("p_equivalent", "p_different"):
        table[name] = adjust_p(torch.tensor(table[name].to_numpy(float))).numpy()
    shown = [table["gap"].isna(), table["p_equivalent"] < 1 - level, table["p_different"] < 1 - level]
    return KnobTest(table.assign(verdict=np.select(shown, [NO_RANGE, *VERDICTS[:2]], "undecided")), margin)


def _compare(difference: Float[Tensor, "draw grid"], margin: float, level: float) -> tuple[float, ...]:
    """The `NUMBERS` of one pair before adjustment; the first draw is the data."""
    observed, drawn = difference[0], difference[1:]
    moved = (drawn - observed).abs()
    largest = moved.amax(1)
    gap, area = float(observed.abs().max()), float(observed.abs().mean())
    spread, area_spread = float(largest.quantile(level)), float(moved.mean(1).quantile(level))
    n_outside = torch.stack([(drawn >= margin).sum(0), (drawn <= -margin).sum(0)]).max()
    n_as_large = (largest >= gap - 1e-12).sum()
    p_equivalent, p_different = ((1 + float(n)) / (1 + len(drawn)) for n in (n_outside, n_as_large))
    gap_interval = (max(0.0, gap - spread), min(1.0, gap + spread))
    area_interval = (max(0.0, area - area_spread), min(1.0, area + area_spread))
    return gap, *gap_interval, area, *area_interval, p_equivalent, p_different
