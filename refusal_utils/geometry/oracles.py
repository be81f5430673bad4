"""Contrasts of the model's own behaviour (the paper's oracles): harmful or benign, refused or complied with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool
from torch.nn.functional import cosine_similarity

from ..directions.estimation import mean_difference
from ..plotting.look import heatmap
from .gram import MIN_PROMPTS, States, behaviour_contrasts
from .uncertainty import cosine_intervals, subset_cosines, subset_counts

WORDS = {"H": "harmful", "B": "benign", "R": "refused", "C": "complied"}
COMPARED = ("HR-BC", "BR-BC")  # refusal of harmful and of benign prompts


@dataclass(frozen=True, eq=False)
class Oracles:
    """The contrasts of behaviour; see `measure_oracles`.

    `by_contrast`: `split half`, `bucket mean`, `bucket min` of each contrast, as in `Stability`. `to_all`: mean and std
    of the cosine of each contrast (of few prompts) with each reference (of all). `between`: the corrected cosine of
    HR-BC and BR-BC with its 95 % interval; empty if a bucket is missing. `buckets`: their states.
    """

    by_contrast: pd.DataFrame
    to_all: pd.DataFrame
    between: dict[str, float]
    buckets: States = field(repr=False)

    def table(self) -> pd.DataFrame:
        """`by_contrast`."""
        return self.by_contrast

    def figure(self, model: str, place: str) -> go.Figure:
        """The mean cosines of `to_all` as a map."""
        title = f"Cosines between contrasts of behaviour, from few prompts and from all ({model} model)"
        axes = {"index": "contrast of few prompts", "columns": "contrast of all prompts"}
        spelled = {name: _spelled(name) for name in self.by_contrast.index}
        below = {name: words.replace(": ", "<br>") for name, words in spelled.items()}
        table = self.to_all["mean"].unstack().rename(index=spelled, columns=below).rename_axis(**axes)
        return heatmap(table, title=title, value=f"mean cosine, {place}").update_xaxes(tickangle=0)

    def summary(self) -> str:
        """One sentence: the corrected cosine of HR-BC and BR-BC with its interval, or that it was not measured."""
        if not self.between:
            return f"{' and '.join(COMPARED)} are not compared: a bucket has too few prompts"
        cosine, low, high = self.between.values()
        return f"{' and '.join(COMPARED)} have corrected cosine {cosine:.2f} ({low:.2f} to {high:.2f})"

    def numbers(self) -> dict[str, float]:
        """`between`, and the split half of each contrast."""
        halves = self.by_contrast["split half"].items()
        return {**self.between, **{f"split half, {name}": cosine for name, cosine in halves}}

    def to_gold(
        self, is_gold: Mapping[str, Bool[np.ndarray, " prompt"]], n_most: int = 32, n_draws: int = 100, seed: int = 0
    ) -> pd.DataFrame:
        """Cosines of directions from a few other prompts with those from all of XSTest's: mean and std over draws.

        Rows are contrasts and references ("XSTest HR-BC", ...); column `n` is the number of prompts a side: `n_most`,
        or the size of the smallest bucket. `is_gold` marks the gold prompts of each bucket. A bucket with fewer than 4
        other prompts gives no contrast, and one with fewer than 2 gold prompts gives no reference; the table may be
        empty. Source: Joad et al. 2602.02132, Table 10.
        """
        chosen = {bucket: torch.tensor(is_gold[bucket].tolist(), dtype=torch.bool) for bucket in self.buckets}
        gold = {bucket: states[chosen[bucket]] for bucket, states in self.buckets.items()}
        others = {bucket: states[~chosen[bucket]] for bucket, states in self.buckets.items()}
        rest = {bucket: states.double() for bucket, states in others.items() if len(states) >= MIN_PROMPTS}
        columns, names = ["mean", "std", "n"], ["contrast", "reference"]
        if len(rest) < 2:
            return pd.DataFrame(columns=columns, index=pd.MultiIndex.from_arrays([[], []], names=names), dtype=float)
        n, sample = min(n_most, *map(len, rest.values())), behaviour_contrasts(rest)
        counts, states = subset_counts(sample, n, n_draws, seed), torch.cat([*rest.values()])
        rows = {}
        for first, second in combinations(rest, 2):
            if min(len(gold[first]), len(gold[second])) < 2:
                continue
            reference = mean_difference(gold[first], gold[second]).double()
            for contrast, refused, answered in zip(sample.categories, sample.refused, sample.answered, strict=True):
                drawn = (counts[:, refused] @ states[refused] - counts[:, answered] @ states[answered]) / n
                cosine = cosine_similarity(drawn, reference[None])
                rows[contrast, f"XSTest {first}-{second}"] = float(cosine.mean()), float(cosine.std()), n
        index = pd.MultiIndex.from_arrays([[key[at] for key in rows] for at in (0, 1)], names=names)
        return pd.DataFrame([*rows.values()], index, columns)


def _spelled(contrast: str) -> str:
    plus, minus = (" ".join(WORDS[letter] for letter in bucket) for bucket in contrast.split("-"))
    return f"{contrast}: {plus}<br>- {minus}"


def measure_oracles(
    buckets: States, n_prompts: int, n_draws: int = 100, n_intervals: int = 1000, seed: int = 0
) -> Oracles:
    """All contrasts of `buckets` from `n_prompts` a side, compared with those of as many others and of all prompts.

    `n_draws` subsets are drawn, and `n_intervals` bootstrap samples for the interval. Raises `ValueError` if a bucket
    has fewer than twice `n_prompts`.
    Source: Joad et al. 2602.02132, Table 10 and Appendix D.
    """
    sample = behaviour_contrasts(buckets)
    halves = subset_cosines(sample, n_prompts, n_draws, seed, "disjoint").diagonal(dim1=1, dim2=2)
    drawn = subset_cosines(sample, n_prompts, n_draws, seed)
    own = drawn.diagonal(dim1=1, dim2=2)
    columns = {"split half": halves.mean(0), "bucket mean": own.mean(0), "bucket min": own.amin(0)}
    names = sample.categories
    numbers = {name: values.numpy() for name, values in columns.items()}
    by_contrast = pd.DataFrame(numbers, pd.Index(names, name="contrast"))
    index = pd.MultiIndex.from_product([names] * 2, names=["contrast", "reference"])
    moments = {"mean": drawn.mean(0).flatten().numpy(), "std": drawn.std(0).flatten().numpy()}
    between = {}
    if set(COMPARED) <= set(names):
        found, label = cosine_intervals(sample, n_intervals, seed=seed), " / ".join(COMPARED)
        labels = {label: found.corrected, f"{label}, low": found.low, f"{label}, high": found.high}
        place = tuple(map(names.index, COMPARED))
        between = {name: float(values[place]) for name, values in labels.items()}
    return Oracles(by_contrast, pd.DataFrame(moments, index), between, buckets)
