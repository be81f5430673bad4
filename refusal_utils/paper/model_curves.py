"""Trade-off curves of several models on one axis, and the methods of finding a direction, model by model."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go

from ..methods import METHODS
from ..plotting.models import curves_on_one_axis, method_dots
from ..prompts.categories import CATEGORY_IDS

COSINE, SPLIT = "cosine with the difference in means", "split half"
REFERENCE = "difference_in_means"
_POINTS = ["model", "direction", "gaps", "RR", "ORR"]


@dataclass(frozen=True, eq=False)
class ModelCurves:
    """The trade-off curves of every model.

    `curves` has the columns model, direction, overall (mean of RR and ORR), RR, ORR, low and high (RR's interval).
    `controls` has a row for each strength of a control direction: model, direction, gaps, RR and ORR.
    """

    curves: pd.DataFrame = field(repr=False)
    controls: pd.DataFrame = field(repr=False)

    @classmethod
    def of(cls, tables: Mapping[str, pd.DataFrame], rates: Mapping[str, pd.DataFrame]) -> "ModelCurves":
        """The curves of the eleven directions from the tables `07_tradeoff.csv` of models, by their names.

        `rates`: the tables `07_rates.csv`, for the controls; a model may lack one.
        """
        parts = [own[own["direction"].isin(CATEGORY_IDS)].assign(model=name) for name, own in tables.items()]
        curves = pd.concat(parts, ignore_index=True)
        columns = ["model", "direction", "overall", "RR", "ORR", "low", "high"]
        points = pd.concat([_controls(name, own) for name, own in rates.items()] or [pd.DataFrame(columns=_POINTS)])
        return cls(curves.assign(ORR=2 * curves["overall"] - curves["RR"])[columns], points)

    def means(self) -> pd.DataFrame:
        """The mean curve of every model: columns model, overall, RR, ORR and directions, the number that reach it.

        A level of overall refusal counts if more than half of the model's directions reach it.
        """
        levels = self.curves.groupby(["model", "overall"], sort=False)[["RR", "ORR"]].mean()
        levels["directions"] = self.curves.groupby(["model", "overall"], sort=False).size()
        levels = levels.reset_index().sort_values(["model", "overall"])
        n_all = levels["model"].map(self.curves.groupby("model")["direction"].nunique())
        order = list(dict.fromkeys(self.curves["model"]))
        kept = levels[levels["directions"] > n_all / 2]
        return kept.sort_values("model", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)

    def table(self) -> pd.DataFrame:
        """By model: directions, the overall refusal from the least to the most that they reach, and mean RR - ORR.

        `from` and `to` are medians over the directions; `RR - ORR` is the mean over the mean curve, and `widest` the
        largest spread of RR between two directions at one overall refusal.
        """
        by = self.curves.groupby("model", sort=False)
        ends = self.curves.groupby(["model", "direction"], sort=False)["overall"].agg(["min", "max"])
        medians = ends.groupby("model", sort=False).median().set_axis(["from", "to"], axis=1)
        means = self.means()
        excess = (means["RR"] - means["ORR"]).groupby(means["model"], sort=False).mean()
        spread = self.curves.groupby(["model", "overall"], sort=False)["RR"].agg(lambda own: own.max() - own.min())
        widest = spread.groupby("model", sort=False).max()
        table = medians.assign(**{"RR - ORR": excess, "widest": widest})
        table.insert(0, "directions", by["direction"].nunique())
        return table

    def figure(self) -> go.Figure:
        """All curves on one axis: thin ones for directions, thick ones for the models' means."""
        title = "Refusal against over-refusal, all models"
        return curves_on_one_axis(self.curves, self.means(), self.controls, title=title)


@dataclass(frozen=True, eq=False)
class ModelMethods:
    """What the methods of finding a direction found on every model, and what they gain.

    `rows` has columns method, model, cosine with the difference in means, split half, and for the largest
    budget of notebook 09 budget, more (overall refusal when added, less that of the difference in means), low and high;
    the last four are NaN for a model on which gains were not measured.
    """

    rows: pd.DataFrame = field(repr=False)

    @classmethod
    def of(cls, tables: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]) -> "ModelMethods":
        """From the tables `09_methods_map.csv` and `09_gains.csv` of models (the second may be empty)."""
        return cls(pd.concat([_methods(name, *own) for name, own in tables.items()], ignore_index=True))

    def table(self) -> pd.DataFrame:
        """A row per method, and per model its cosine, split half, and gain with interval."""
        shown = self.rows.assign(gain=[_interval(row) for row in self.rows.itertuples()])
        order = list(dict.fromkeys(self.rows["model"]))
        table = shown.pivot(index="method", columns="model", values=[COSINE, SPLIT, "gain"])
        table = table.reindex(list(dict.fromkeys(self.rows["method"])))
        return table.swaplevel(axis=1)[[(name, column) for name in order for column in (COSINE, SPLIT, "gain")]]

    def figure(self) -> go.Figure:
        """A row per method: its cosine with the difference in means, and its gain over it, on every model."""
        others = self.rows[self.rows["method"] != REFERENCE]
        names = others.assign(method=[METHODS[name].title if name in METHODS else name for name in others["method"]])
        cosines = names.assign(panel=COSINE, value=names[COSINE], low=names[COSINE], high=names[COSINE])
        budgets = sorted(names["budget"].dropna().unique())
        panel = f"overall refusal added beyond it{f', {budgets[-1]:g} nats' if budgets else ''}"
        gains = names.assign(panel=panel, value=names["more"]).dropna(subset=["value"])
        title = "Methods against the difference in means, model by model"
        return method_dots(pd.concat([cosines, gains]), title=title, panels=[COSINE, panel])


def _controls(name: str, rates: pd.DataFrame) -> pd.DataFrame:
    """The points of all directions that are neither one of the eleven nor pooled."""
    steered = rates[(rates["intervention"] == "steered") & ~rates["direction"].isin([*CATEGORY_IDS, "pooled"])]
    return steered.assign(model=name)[_POINTS]


def _methods(name: str, found: pd.DataFrame, gains: pd.DataFrame) -> pd.DataFrame:
    rows = found.rename(columns={"cosine with difference_in_means": COSINE})[["method", COSINE, SPLIT]]
    rows = rows.assign(model=name, budget=float("nan"), more=float("nan"), low=float("nan"), high=float("nan"))
    if gains.empty:
        return rows
    added = gains[(gains["intervention"] == "added") & (gains["budget"] == gains["budget"].max())].set_index("name")
    own = added.reindex(rows["method"])[["budget", "more", "low", "high"]]
    return rows.assign(**{column: own[column].to_numpy() for column in own})


def _interval(row: object) -> str:
    more, low, high = (getattr(row, name) for name in ("more", "low", "high"))
    return "" if pd.isna(more) else f"{more:+.2f} ({low:+.2f} to {high:+.2f})"
