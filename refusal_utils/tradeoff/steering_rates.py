"""What steering and ablation do to the refusal rates of a controlled set, in the format of the paper's Table 2."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ..directions.direction_set import DirectionSet
from ..model.chat_model import ChatModel
from ..plotting.look import heatmap
from ..steering.conditions import Condition, steering_condition
from ..steering.responses import NOT_JUDGED
from .rates import MAX_DEGENERATE, choose_strength, rate_table
from .sweep import sweep


@dataclass(frozen=True, eq=False)
class SteeringRates:
    """The rates of every direction at every strength in gaps (`steered`), and with the direction removed (`ablated`).

    Both are tables of `rate_table`. `directions` gives the size of a gap.
    """

    steered: pd.DataFrame = field(repr=False)
    ablated: pd.DataFrame = field(repr=False)
    directions: DirectionSet = field(repr=False)

    def table(self, max_orr: float) -> pd.DataFrame:
        """The strength that `choose_strength` picks for each ablated direction, and the rates after ablation.

        Rows (intervention, direction); alpha is the strength in units of the residual stream.
        """
        names = list(self.ablated.index)
        chosen = choose_strength(self.steered, max_orr).loc[names]
        table = pd.concat({"steered": chosen, "ablated": self.ablated}, names=["intervention", "direction"])
        alpha = table["gaps"] * table.index.get_level_values("direction").map(self.directions.gap)
        edges = [f"{name}{edge}" for name in ("RR", "ORR") for edge in ("", " low", " high")]
        return table.assign(alpha=alpha)[["gaps", "alpha", "accuracy", *edges, NOT_JUDGED, "why"]]

    def unusable(self) -> pd.Series:
        """The share of broken text of every steered point that has too much of it to be read (over 10 %)."""
        broken = self.steered["degenerate"]
        return broken[broken > MAX_DEGENERATE].sort_values(ascending=False)

    def departures(self) -> pd.Series:
        """RR minus the overall refusal rate, (RR - ORR) / 2, of every steered point with intact text.

        No two curves of the knob test can be further apart than the lowest of these numbers is from the highest
        (counting the unsteered model, at 0 if no bucket is missing). Empty if no steered point has intact text.
        """
        rates = self.steered
        counted = (rates.index.get_level_values("gaps") != 0) & (rates["degenerate"] <= MAX_DEGENERATE)
        return ((rates["RR"] - rates["ORR"]) / 2)[counted].rename("RR - overall")

    def figure(self, *, title: str) -> go.Figure:
        """A map of RR, direction by strength in gaps; the last column is the ablation."""
        table = self.steered["RR"].unstack("gaps").reindex(self.ablated.index)
        table = table.rename(columns="{:g}".format).assign(ablated=self.ablated["RR"])
        return heatmap(table.rename_axis(columns="gaps"), title=title, value="RR", limits=(0, 1))

    def rows(self, **notes: Any) -> pd.DataFrame:
        """All rates, by direction, with the columns gaps, coefficient and intervention, and `notes` as columns."""
        parts = {"steered": self.steered.reset_index("gaps"), "ablated": self.ablated.assign(gaps=float("nan"))}
        rows = pd.concat([part.assign(intervention=name) for name, part in parts.items()])
        return rows.assign(coefficient=rows["gaps"] * rows.index.map(self.directions.gap), **notes)


def steering_variants(directions: DirectionSet, name: str, n_layers: int, gaps: float = 1.0) -> list[Condition]:
    """One direction at one strength, added at other tokens, with the norm kept, and at the neighbouring layers.

    Each condition is named after its variant; `n_layers` is the model's number of layers.
    """
    layer = directions.provenance.layer
    variants: dict[str, dict[str, Any]] = {
        "both": {},
        "prompt only": {"tokens": "prompt"},
        "generation only": {"tokens": "generation"},
        "every 2nd token": {"every": 2},
        "every 3rd token": {"every": 3},
        "norm kept": {"keep_norm": True},
    }
    variants |= {f"layer {each}": {"layer": each} for each in (layer - 1, layer + 1) if 0 < each < n_layers}
    made = {each: steering_condition(directions, name, gaps=gaps, **options) for each, options in variants.items()}
    return [replace(condition, name=each) for each, condition in made.items()]


def rates_by_length(
    chat: ChatModel,
    controlled: pd.DataFrame,
    conditions: Sequence[Condition],
    lengths: Collection[int],
    **options: Any,
) -> pd.DataFrame:
    """RR, ORR, degenerate and not judged of the same responses cut to each of `lengths`, and the verdicts that change.

    Rows are indexed by (tokens, gaps). "verdicts that change" is the share whose outcome differs from that at the
    largest length. `options` are those of `respond`; with its `cache_dir` nothing is generated twice.
    """
    longest_first = sorted(lengths, reverse=True)
    found = {n: sweep(chat, controlled, conditions, **{**options, "max_new_tokens": n}).rows for n in longest_first}
    last = found[longest_first[0]]["outcome"]
    tables = {n: rate_table(found[n], "gaps")[["RR", "ORR", "degenerate", NOT_JUDGED]] for n in sorted(lengths)}
    moved = {n: (found[n]["outcome"] != last).groupby(found[n]["gaps"]).mean() for n in sorted(lengths)}
    return pd.concat(tables, names=["tokens"]).assign(**{"verdicts that change": pd.concat(moved)})
