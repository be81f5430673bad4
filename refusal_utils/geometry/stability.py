"""How much a direction depends on which prompts were drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from ..plotting.look import category_lines
from .gram import Contrasts, States, contrasts, inner_products
from .uncertainty import reliability, subset_cosines

HALVES = ["split half mean", "split half std"]
N_MOST = 32  # prompts a side


@dataclass(frozen=True, eq=False)
class Stability:
    """The stability of every direction; see `measure_stability`.

    `by_category` has the columns
    `gap`: length of the difference in means, in units of the residual stream;
    `reliability`: share of its squared length that is not sampling noise;
    `split half mean`, `split half std`: cosine between the directions of `n` prompts a side and of `n` others;
    `bucket min`, `bucket mean`, `bucket max`: cosine of `bucket n` prompts a side with the direction of all.
    """

    by_category: pd.DataFrame
    sample: Contrasts = field(repr=False)
    seed: int = 0

    def table(self) -> pd.DataFrame:
        """`by_category`."""
        return self.by_category

    def numbers(self) -> dict[str, float]:
        """The lowest values over all categories."""
        columns = {"reliability": "reliability", "split half": "split half mean", "bucket": "bucket min"}
        return {f"lowest {name}": float(self.by_category[column].min()) for name, column in columns.items()}

    def curve(self, n_draws: int = 100) -> pd.DataFrame:
        """The mean cosine of directions from few prompts a side (rows) with those of all, by category (columns)."""
        smallest = min(side.stop - side.start for side in self.sample.sides)
        sizes = [*(n for n in (4, 8, 16, 32, 64, 128, 256) if n < smallest), smallest]
        drawn = {n: _own(subset_cosines(self.sample, n, n_draws, self.seed)).mean(0).numpy() for n in sizes}
        return pd.DataFrame(drawn, index=self.sample.categories).T

    def figure(self, model: str, place: str) -> go.Figure:
        """`curve` on a logarithmic axis; `place` names hook, layer and position."""
        curve = self.curve()
        title = f"How many prompts a direction needs ({model} model)"
        most = max(side.stop - side.start for side in self.sample.sides)
        y = f"cosine with the direction of all {most if most == curve.index[-1] else 'prompts'}, {place}"
        limits = (float(curve.min().min()) - 0.05, 1.01)
        figure = category_lines(curve, title=title, x="prompts a side", y=y, range_y=limits)
        return figure.update_xaxes(type="log", tickvals=list(curve.index))


def measure_stability(
    refused: States,
    answered: Float[Tensor, "answered_prompt d_model"],
    wide: tuple[States, Float[Tensor, "wide_answered_prompt d_model"]] | None = None,
    n_draws: int = 100,
    seed: int = 0,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> Stability:
    """The stability of the directions of a draw, with split halves of up to 32 prompts a side.

    Halves that are larger than the draw allows come from the `wide` sides: the draw's prompts and others of the same
    kinds. Everything else is measured on the draw alone; mini-buckets have at most half of its smallest side. With
    `groups` of categories, the refused sides of each group are pooled into one. Raises `ValueError` for fewer than 4
    prompts on a side. Source: Joad et al. 2602.02132, Table 8 and Appendix D.
    """
    if groups is not None:
        wide = wide and (_pooled(wide[0], groups), wide[1])
        refused = _pooled(refused, groups)
    sample = contrasts(refused, answered)
    n_bucket = min(N_MOST, *((side.stop - side.start) // 2 for side in sample.sides))
    buckets = _own(subset_cosines(sample, n_bucket, n_draws, seed))
    columns = {
        "gap": inner_products(sample, sample.every_prompt)[0].diagonal().sqrt().float(),
        "reliability": reliability(sample),
        **dict.fromkeys(HALVES, torch.zeros(len(refused))),
        "bucket min": buckets.amin(0),
        "bucket mean": buckets.mean(0),
        "bucket max": buckets.amax(0),
    }
    index = pd.Index(list(refused), name="category")
    table = pd.DataFrame({name: values.numpy() for name, values in columns.items()}, index=index)
    more, more_answered = wide or (refused, answered)
    table["n"] = [max(n_bucket, min(N_MOST, len(more[name]) // 2, len(more_answered) // 2)) for name in refused]
    for n, names in table.groupby("n").groups.items():
        larger = {name: more[name] for name in names}, more_answered
        halves = _halves(sample if n == n_bucket else contrasts(*larger), n, n_draws, seed)
        table.loc[names, HALVES] = halves.loc[names]
    return Stability(table.assign(**{"bucket n": n_bucket}), sample, seed)


def _pooled(refused: States, groups: Mapping[str, Sequence[str]]) -> States:
    """The refused sides of groups of categories; a group without any is left out."""
    present = {group: [refused[name] for name in names if name in refused] for group, names in groups.items()}
    return {group: torch.cat(sides) for group, sides in present.items() if sides}


def _halves(sample: Contrasts, n: int, n_draws: int, seed: int) -> pd.DataFrame:
    drawn = _own(subset_cosines(sample, n, n_draws, seed, "disjoint"))
    moments = torch.stack([drawn.mean(0), drawn.std(0)], dim=1)
    return pd.DataFrame(moments.numpy(), index=list(sample.categories), columns=HALVES)


def _own(drawn: Float[Tensor, "draw category category"]) -> Float[Tensor, "draw category"]:
    """The cosines of each direction with the other estimate of itself."""
    return drawn.diagonal(dim1=1, dim2=2)
