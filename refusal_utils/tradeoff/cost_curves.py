"""Refusal against over-refusal at equal cost: a curve per method, from ablations to additions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go

from ..model.chat_model import ChatModel
from ..plotting.look import CONTROL_LOOKS, HEIGHT, WIDTH, label
from ..plotting.tradeoff import AXES
from ..stats import percentile_interval
from ..steering.responses import respond
from .curves import GRID, curves, reach_on_data
from .equal_cost import BUDGETS, EqualCost, MethodDials, equal_cost
from .outcomes import Outcomes
from .rates import rate_table

ADDED, ABLATED = "added", "ablated"
# From plotly's Dark24 and Alphabet, chosen so that any two differ clearly, also from the controls.
PALETTE = [
    *("#2E91E5", "#E15F99", "#1CA71C", "#FB0D0D", "#DA16FF", "#B68100", "#511CFB", "#862A16"),
    *("#A777F1", "#620042", "#1C8356", "#1616A7", "#B10DA1", "#222A2A", "#565656"),
]


@dataclass(frozen=True, eq=False)
class CostCurves:
    """Judged responses of a controlled set with every direction added and ablated, each at every budget.

    `interventions` are the two, "added" and "ablated"; `unsteered` are the responses without any.
    """

    interventions: Mapping[str, EqualCost]
    unsteered: pd.DataFrame = field(repr=False)

    def table(self) -> pd.DataFrame:
        """Strength, nats, RR, ORR and degenerate share by intervention, name and budget, with Wilson intervals."""
        return pd.concat({how: each.table() for how, each in self.interventions.items()}, names=["intervention"])

    def outcomes(self, names: Sequence[str] | None = None) -> Outcomes:
        """The outcomes of some names or all, with budgets in nats as strengths: those of ablations are negative."""
        signed = {ADDED: 1, ABLATED: -1}
        parts = [
            own.rows.assign(direction=own.rows["name"], gaps=signed[how] * own.rows["budget"])
            for how, own in self.interventions.items()
        ]
        rows = pd.concat(parts)
        found = rows.groupby("direction", sort=False)["gaps"].unique()
        asked = found if names is None else found[list(names)]
        levels = {str(name): sorted(budgets) for name, budgets in asked.items()}
        return Outcomes.from_rows(pd.concat([self.unsteered.assign(direction="", gaps=0.0), rows]), levels)

    def gains(self, reference: str, n_draws: int = 1000, seed: int = 0) -> pd.DataFrame:
        """By intervention, budget and name: the overall refusal rate (mean of RR and ORR), compared with `reference`.

        Columns: overall, more (the difference to the reference at the same budget), low and high (its 95 % interval
        over prompts, the same for both). Points with broken text are left out.
        """
        outcomes = self.outcomes()
        overall = outcomes.overall(outcomes.weights(n_draws, seed)).masked_fill(~outcomes.usable, float("nan"))
        more = overall - overall[:, [outcomes.directions.index(reference)]]
        low, high = percentile_interval(more[1:])
        rows = [
            (ADDED if budget > 0 else ABLATED, abs(budget), name, *(float(each[row, column]) for each in values))
            for column, budget in enumerate(outcomes.strengths)
            for row, name in enumerate(outcomes.directions)
            if (values := (overall[0], more[0], low, high)) and budget
        ]
        index = ["intervention", "budget", "name"]
        return pd.DataFrame(rows, columns=[*index, "overall", "more", "low", "high"]).dropna().set_index(index)

    def verdicts(self, reference: str, names: Sequence[str], n_draws: int = 1000, seed: int = 0) -> pd.DataFrame:
        """By intervention and budget: how many of `names` clearly gain more than `reference`, clearly less, or neither.

        An addition gains more if it raises refusal more, an ablation if it lowers it more; clearly means that the whole
        interval of `gains` lies on that side.
        """
        gains = self.gains(reference, n_draws, seed)
        own = gains[gains.index.get_level_values("name").isin(list(names))]
        is_added = own.index.get_level_values("intervention") == ADDED
        above, below = own["low"] > 0, own["high"] < 0
        verdicts = {"clearly more": above.where(is_added, below), "clearly less": below.where(is_added, above)}
        found = pd.DataFrame(verdicts).assign(undecided=~(above | below))
        return found.groupby(["intervention", "budget"]).sum()

    def matched(self, names: Sequence[str], n_draws: int = 1000, seed: int = 0) -> pd.DataFrame:
        """RR with its 95 % interval, and ORR, of each name at the same overall refusal rates; NaN beyond its reach.

        Rows (overall, name). The two rates are the medians of the lowest and of the highest that the names reach, so at
        least half of them reach each. Values are read from the straight lines between a name's points.
        """
        outcomes = self.outcomes(names)
        drawn = curves(outcomes, outcomes.weights(n_draws, seed))
        ends = reach_on_data(outcomes).median(dim=1).values  # the lower of two middle values
        lowest, highest = (GRID - ends[0] > -1e-9).nonzero()[0], (GRID - ends[1] < 1e-9).nonzero()[-1]
        parts = {}
        for at in (int(lowest), int(highest)):
            low, high = percentile_interval(drawn[1:, :, at])
            values = {"RR": drawn[0, :, at], "RR low": low, "RR high": high, "ORR": 2 * GRID[at] - drawn[0, :, at]}
            columns = {name: each.numpy() for name, each in values.items()}
            parts[float(GRID[at])] = pd.DataFrame(columns, index=pd.Index(outcomes.directions, name="name"))
        return pd.concat(parts, names=["overall"])

    def figure(self, *, title: str, names: Mapping[str, str] | None = None) -> go.Figure:
        """A curve per direction through its budgets; controls are grey or purple. Only the first has whiskers, 95 %.

        The hover text has the intervals of the others, because a dozen overlapping crosses cannot be told apart.
        `names`: what the legend calls some directions.
        """
        points = self._points(names or {})
        shown = list(dict.fromkeys(points["shown"]))
        colours = [name for name in shown if name not in CONTROL_LOOKS]
        palette = dict(zip(colours, PALETTE * 2, strict=False))
        controls = {name: CONTROL_LOOKS[name] for name in shown if name in CONTROL_LOOKS}
        figure = px.line(
            points,
            x="ORR",
            y="RR",
            color="shown",
            symbol="shown",
            line_group="name",
            hover_name="name",
            hover_data=dict.fromkeys(("intervention", "nats", "RR low", "RR high", "ORR low", "ORR high"), True),
            labels={**AXES, "shown": ""},
            title=title,
            markers=True,
            template="refusal",
            width=WIDTH,
            height=HEIGHT + 160,
            color_discrete_map=palette | {name: look[0] for name, look in controls.items()},
            symbol_map={name: look[1] for name, look in controls.items()},
        )
        figure.update_traces(marker_size=8, line_width=1.6)
        first = points[points["name"] == points["name"].iloc[0]]
        ends = {axis: [first[f"{rate} {end}"] for end in ("low", "high")] for axis, rate in (("x", "ORR"), ("y", "RR"))}
        for axis, (low, high) in ends.items():
            middle = first["ORR" if axis == "x" else "RR"]
            bars = {"array": high - middle, "arrayminus": middle - low, "thickness": 0.8, "width": 3}
            figure.data[0][f"error_{axis}"] = bars
        return figure.update_xaxes(range=[-0.03, 1.03]).update_yaxes(range=[-0.03, 1.03])

    def _points(self, titles: Mapping[str, str]) -> pd.DataFrame:
        """A row per point, in the order of the curves: ablations from the largest budget on, then additions."""
        table = self.table().reset_index().dropna(subset=["RR", "ORR"])
        start = rate_table(self.unsteered.assign(all=""), "all").iloc[0]
        names = list(dict.fromkeys(table["name"]))
        middle = pd.DataFrame([{**start, "name": name, "budget": 0.0, "nats": 0.0} for name in names])
        points = pd.concat([table, middle.assign(intervention="unsteered")], ignore_index=True)
        points["signed"] = points["budget"].where(points["intervention"] != ABLATED, -points["budget"])
        points["rank"] = points["name"].map({name: rank for rank, name in enumerate(names)})
        shown = points["name"].map(lambda name: titles.get(name) or label(name))
        return points.sort_values(["rank", "signed"]).assign(shown=shown).round(4)


def cost_curves(
    chat: ChatModel,
    controlled: pd.DataFrame,
    dials: MethodDials,
    prompts: Sequence[str],
    budgets: Sequence[float] = BUDGETS,
    **options: Any,
) -> CostCurves:
    """The responses to a controlled set with every direction added and ablated at equal cost, as in `equal_cost`.

    Ablations end when nothing is left, and count at the budgets that they cannot spend. Raises `ValueError` as
    `equal_cost` does.
    """
    found = {
        ABLATED: equal_cost(chat, controlled, dials.ablated, prompts, budgets, most=1.0, **options),
        ADDED: equal_cost(chat, controlled, dials.added, prompts, budgets, **options),
    }
    return CostCurves(found, respond(chat, controlled, **options))
