"""Does replacing each category's top heads stop the refusal, and more so than random heads of the same layers?"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go
import torch

from ..plotting.heads import outcome_dots
from ..steering.responses import NOT_JUDGED
from .overlap import Head
from .refusal_opening import RefusalOpening
from .replacement import HeadTrial


def replace_top_heads(
    trial: HeadTrial, top: Mapping[str, Sequence[Head]], opening: RefusalOpening, *, n_random: int = 3, seed: int = 0
) -> "HeadEffects":
    """The effect of ablating and of patching each category's `top` heads, on the prompts of that category.

    Controls: `n_random` sets of as many other heads of the same layers, or as many as are left, averaged per prompt.
    """
    categories, after = list(trial.prompts["category"]), {}
    controls = {name: same_layer_heads(own, trial.n_heads, n_random, seed) for name, own in top.items()}
    sets = [[controls[name][number] for name in categories] for number in range(n_random)]
    for kind, replace in (("ablate", trial.ablate), ("patch", trial.patch)):
        after[f"{kind} top"] = trial.measure(replace([top[name] for name in categories]), opening)
        drawn = [trial.measure(replace(own), opening) for own in sets if any(own)]
        if drawn:
            after[f"{kind} random"] = sum(drawn) / len(drawn)
    before = trial.measure(trial.ablate([()] * len(categories)), opening)
    return HeadEffects(trial.prompts["category"], before, after)


@dataclass(frozen=True, eq=False)
class HeadEffects:
    """Projection, refusal logit and refusal of every prompt `before` and `after` replacing heads.

    Each frame has a row per prompt; `after` is keyed by what was replaced. `category`: each prompt's category.
    """

    category: pd.Series = field(repr=False)
    before: pd.DataFrame = field(repr=False)
    after: dict[str, pd.DataFrame] = field(repr=False)

    def table(self) -> pd.DataFrame:
        """The mean change of each quantity over the prompts, with 95 % normal intervals (paired by prompt).

        Rows (heads, of), columns change, low and high, in the quantities' units. NaN values are left out.
        """
        rows = {}
        for name, frame in self.after.items():
            change = frame - self.before
            mean, error = change.mean(), 1.96 * change.std() / change.count() ** 0.5
            rows[name] = pd.DataFrame({"change": mean, "low": mean - error, "high": mean + error})
        return pd.concat(rows, names=["heads", "of"])

    def change(self, name: str, of: str) -> str:
        """The mean change of the quantity `of` after replacing the heads called `name`, with its interval, as text."""
        if name not in self.after:
            return "not measured"
        row = self.table().loc[(name, of)]
        return f"{row['change']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})"

    def by_category(self, name: str) -> pd.DataFrame:
        """The mean change of each quantity per category after replacing the heads called `name`."""
        return (self.after[name] - self.before).groupby(self.category, sort=False).mean()

    def refused(self) -> pd.DataFrame:
        """The share of prompts refused: rows categories, columns before and each replacement, and how many not judged.

        The last column counts the prompts with a response without a verdict, before or after any replacement.
        """
        frames = {"nothing replaced": self.before, **self.after}
        refused = pd.DataFrame({name: frame["refused"] for name, frame in frames.items()})
        groups = refused.groupby(self.category, sort=False)
        unjudged = refused.isna().any(axis=1).groupby(self.category, sort=False).sum()
        return groups.mean().assign(**{NOT_JUDGED: unjudged}).rename_axis("category")

    def figure(self) -> go.Figure:
        """A dot per category and replacement: the share of prompts refused."""
        title = "Refusals left after replacing heads"
        return outcome_dots(self.refused().drop(columns=NOT_JUDGED), title=title, value="share of prompts refused")


def same_layer_heads(heads: Sequence[Head], n_heads: int, n_draws: int, seed: int = 0) -> list[list[Head]]:
    """`n_draws` random sets of heads, each with as many of every layer as `heads` has, and none of `heads` themselves.

    If a layer has fewer heads left, all of these are taken.
    """
    generator = torch.Generator().manual_seed(seed)
    counts = sorted(Counter(layer for layer, _ in heads).items())
    left = {layer: [(layer, head) for head in range(n_heads) if (layer, head) not in heads] for layer, _ in counts}

    def draw(layer: int, count: int) -> list[Head]:
        order = torch.randperm(len(left[layer]), generator=generator)[:count]
        return [left[layer][index] for index in order]

    return [[head for each in counts for head in draw(*each)] for _ in range(n_draws)]
