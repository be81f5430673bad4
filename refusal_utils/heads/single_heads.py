"""Does a head's share predict the effect of ablating it? One head at a time, all categories."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.stats import rankdata, zscore

from ..plotting.look import category_scatter, name_points
from .attribution import HeadAttribution
from .overlap import top_heads
from .replacement import HeadTrial


def ablate_single_heads(trial: HeadTrial, attribution: HeadAttribution, n: int) -> "SingleHeads":
    """The effect of ablating each of the `n` heads with the largest |contribution| to any direction, one at a time.

    All heads if there are fewer. The effect is the mean fall of the projection over each category's prompts. Raises
    `ValueError` if `n` is below 1.
    """
    before = trial.projections(trial.ablate([()] * len(trial.prompts)))
    rows = []
    for layer, head in top_heads(attribution.contribution.abs().amax(-1), n):
        fall = before - trial.projections(trial.ablate([[(layer, head)]] * len(trial.prompts)))
        effect = pd.Series(fall.numpy()).groupby(trial.prompts["category"]).mean()
        for c, name in enumerate(attribution.categories):
            rows.append((name, layer, head, float(attribution.contribution[layer, head, c]), effect[name]))
    columns = ["category", "layer", "head", "attribution", "effect"]
    return SingleHeads(pd.DataFrame(rows, columns=columns), attribution.where)


@dataclass(frozen=True, eq=False)
class SingleHeads:
    """A row per head and category: columns category, layer, head, attribution (contribution) and effect."""

    pairs: pd.DataFrame = field(repr=False)
    where: str = ""

    def rank_test(self, n_draws: int = 1000, seed: int = 0) -> pd.Series:
        """Spearman's correlation `rho` of attribution and effect over the pairs, with what chance gives.

        The null permutes the effects of whole heads within their layers, because one head's numbers are not independent
        and layers differ as a whole. `null`: its mean; `null high`: its 95 % quantile; `p`: one-sided.
        """
        wide = self.pairs.pivot(index=["layer", "head"], columns="category", values=["attribution", "effect"])
        shares, effects = (
            zscore(rankdata(wide[name], axis=None)).reshape(len(wide), -1) for name in ("attribution", "effect")
        )
        rho = (shares * effects).mean()
        layers = wide.index.get_level_values("layer").to_numpy()
        orders = (layers + np.random.default_rng(seed).random((n_draws, len(wide)))).argsort(1)
        null = (shares * effects[orders]).mean((1, 2))
        p = (1 + (null >= rho - 1e-12).sum()) / (1 + n_draws)
        return pd.Series({"rho": rho, "null": null.mean(), "null high": np.quantile(null, 0.95), "p": p})

    @property
    def slope(self) -> float:
        """How much of its share ablating a head takes from the projection, over all pairs; 1 if share is effect."""
        shares, effects = self.pairs["attribution"], self.pairs["effect"]
        return float((effects * shares).sum() / (shares**2).sum())

    def by_layer(self) -> pd.DataFrame:
        """Per layer: Spearman's correlation of attribution and effect, and their mean distance."""
        layers = self.pairs.assign(distance=self._distance).groupby("layer")
        rho = {layer: own["attribution"].corr(own["effect"], "spearman") for layer, own in layers}
        return pd.DataFrame({"rank correlation": rho, "distance": layers["distance"].mean()})

    def table(self, n: int = 6) -> pd.DataFrame:
        """The `n` pairs whose share says least about the effect."""
        return self.pairs.loc[self._distance.nlargest(n).index]

    @property
    def _distance(self) -> pd.Series:
        return (self.pairs["effect"] - self.pairs["attribution"]).abs()

    def numbers(self, seed: int = 0) -> dict[str, float]:
        """The rank correlation with its null and p-value (`rank_test`), and the slope."""
        return {**dict(self.rank_test(seed=seed)), "slope": self.slope}

    def summary(self, seed: int = 0) -> str:
        """`numbers` in one line."""
        test = self.numbers(seed)
        null = f"{test['null']:.2f} (95 % below {test['null high']:.2f})"
        rho = f"rank correlation {test['rho']:.2f}; effects permuted within layers {null}, p = {test['p']:.3f}"
        return f"{rho}; ablation takes {test['slope']:.2f} of a share from the projection"

    def figure(self) -> go.Figure:
        """A point per pair: its contribution across, the effect of ablating the head up; those of `table` are named."""
        title = "Contribution of a head against the effect of ablating it"
        figure = category_scatter(self.pairs, "attribution", "effect", title=title)
        furthest = self.table()
        heads = "head " + furthest["layer"].astype(str) + "." + furthest["head"].astype(str)
        name_points(figure, furthest["attribution"], furthest["effect"], heads)
        figure.update_xaxes(title=f"contribution along r, {self.where}")
        return figure.update_yaxes(title=f"fall of the projection on r, {self.where}")
