"""Contrasts of the model's own behaviour (the paper's oracles): harmful or benign, refused or complied with."""

from dataclasses import dataclass
from itertools import combinations

import pandas as pd
import plotly.graph_objects as go
import torch
from torch.nn.functional import cosine_similarity

from ..directions.estimation import mean_difference
from ..plotting.look import heatmap
from .gram import States, behaviour_contrasts
from .uncertainty import cosine_intervals, subset_cosines, subset_counts

COMPARED = ("HR-BC", "BR-BC")  # refusal of harmful and of benign prompts


@dataclass(frozen=True, eq=False)
class Oracles:
    """The contrasts of behaviour; see `measure_oracles`.

    `by_contrast`: `split half`, `bucket mean`, `bucket min` of each contrast, as in `Stability`. `to_all`: by contrast
    (of few prompts) and reference (of all), mean and std of the cosine. `between`: the corrected cosine of HR-BC and
    BR-BC with its 95 % interval; empty if a bucket is missing.
    """

    by_contrast: pd.DataFrame
    to_all: pd.DataFrame
    between: dict[str, float]

    def table(self) -> pd.DataFrame:
        """`by_contrast`."""
        return self.by_contrast

    def figure(self, model: str, place: str) -> go.Figure:
        """The mean cosines of `to_all` as a map."""
        title = f"Contrasts of few prompts against contrasts of all ({model} model)"
        table = self.to_all["mean"].unstack().rename_axis(index="contrast of few prompts", columns="of all prompts")
        return heatmap(table, title=title, value=f"mean cosine, {place}")

    def numbers(self) -> dict[str, float]:
        """`between`, and the split half of each contrast."""
        halves = self.by_contrast["split half"].items()
        return {**self.between, **{f"split half, {name}": cosine for name, cosine in halves}}


def measure_oracles(
    buckets: States, n_prompts: int, n_draws: int = 100, n_intervals: int = 1000, seed: int = 0
) -> Oracles:
    """All contrasts of `buckets` from `n_prompts` a side, against as many others and against all prompts.

    `n_draws` subsets are drawn, and `n_intervals` bootstrap samples for the interval. Raises `ValueError` if a bucket has
    fewer than 2 `n_prompts`.
    Source: Joad et al. 2602.02132, Table 10 and Appendix D.
    """
    sample = behaviour_contrasts(buckets)
    halves = subset_cosines(sample, n_prompts, n_draws, seed, "disjoint").diagonal(dim1=1, dim2=2)
    drawn = subset_cosines(sample, n_prompts, n_draws, seed)
    own = drawn.diagonal(dim1=1, dim2=2)
    columns = {"split half": halves.mean(0), "bucket mean": own.mean(0), "bucket min": own.amin(0)}
    names = sample.categories
    by_contrast = pd.DataFrame(
        {name: values.numpy() for name, values in columns.items()}, pd.Index(names, name="contrast")
    )
    index = pd.MultiIndex.from_product([names] * 2, names=["contrast", "reference"])
    moments = {"mean": drawn.mean(0).flatten().numpy(), "std": drawn.std(0).flatten().numpy()}
    between = {}
    if set(COMPARED) <= set(names):
        found, label = cosine_intervals(sample, n_intervals, seed=seed), " / ".join(COMPARED)
        labels = {"corrected": label, "low": f"{label}, low", "high": f"{label}, high"}
        place = tuple(map(names.index, COMPARED))
        between = {labels[name]: float(getattr(found, name)[place]) for name in labels}
    return Oracles(by_contrast, pd.DataFrame(moments, index), between)


def gold_cosines(
    buckets: States, gold: States, n_prompts: int, n_draws: int = 100, seed: int = 0, name: str = "XSTest"
) -> pd.DataFrame:
    """Directions of `n_prompts` a side of `buckets` against those of other prompts, `gold`: mean and std of the cosine.

    Rows are contrasts and references ("XSTest HR-BC", ...). No prompt may be in both; a reference is left out if one of
    its gold buckets has fewer than two prompts. Raises `ValueError` if a bucket is too small.
    Source: Joad et al. 2602.02132, Table 10.
    """
    sample = behaviour_contrasts(buckets)
    counts = subset_counts(sample, n_prompts, n_draws, seed)
    states = torch.cat([values.double() for values in buckets.values()])
    rows = {}
    for first, second in combinations(buckets, 2):
        if min(len(gold[first]), len(gold[second])) < 2:
            continue
        reference = mean_difference(gold[first], gold[second]).double()
        for contrast, refused, answered in zip(sample.categories, sample.refused, sample.answered, strict=True):
            drawn = (counts[:, refused] @ states[refused] - counts[:, answered] @ states[answered]) / n_prompts
            cosine = cosine_similarity(drawn, reference[None])
            rows[contrast, f"{name} {first}-{second}"] = float(cosine.mean()), float(cosine.std())
    index = pd.MultiIndex.from_arrays([[key[at] for key in rows] for at in (0, 1)], names=["contrast", "reference"])
    return pd.DataFrame(rows.values(), index, columns=["mean", "std"])
