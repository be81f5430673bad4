"""Figures of steering: trade-off curves, shares by style, and accuracies with their intervals."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..prompts.categories import CATEGORY_IDS
from .look import SEQUENTIAL, TITLES, direction_kind, direction_look, square_layout, titles


def tradeoff_curves(
    bands: pd.DataFrame, points: pd.DataFrame, *, title: str, banded: Collection[str] = ("pooled",)
) -> go.Figure:
    """Refusal against over-refusal: points of every direction at every strength, and the curves that `bands` has.

    `bands` has columns direction, overall, RR, low, high (`curves.curve_bands`); `points` direction, RR, ORR, gaps. The
    intervals stand in the hover text of the lines; they are drawn for the directions in `banded` alone, since a dozen
    bands on one another cannot be told apart. Controls of one kind share a marker and an entry in the legend.
    """
    figure = go.Figure()
    for name, own in points.groupby("direction", sort=False):
        look, kind = direction_look(str(name)), direction_kind(str(name))
        label = TITLES.get(kind, kind)
        entry = {"name": label, "legendgroup": kind}
        band = bands[bands["direction"] == name]
        if len(band) and name in banded:
            figure.add_scatter(**_band(band, look["color"]), **entry)
        if len(band):
            figure.add_scatter(**_curve(band, label, look), **entry)
        whole = label if kind in TITLES else name
        hover = f"{whole}<br>%{{text}} gaps<br>RR %{{y:.2f}}, ORR %{{x:.2f}}<extra></extra>"
        at = {"x": own["ORR"].to_numpy(), "y": own["RR"].to_numpy(), "text": own["gaps"].astype(str)}
        first = label not in {trace.name for trace in figure.data if trace.mode == "markers"}
        shape = {**look, "size": 7}
        figure.add_scatter(mode="markers", marker=shape, hovertemplate=hover, showlegend=first, **at, **entry)
    figure.update_layout(template="refusal", title=title, width=980, height=720)
    figure.update_xaxes(title="ORR: share of benign prompts refused", range=[-0.03, 1.03])
    figure.update_yaxes(title="RR: share of harmful prompts refused", range=[-0.03, 1.03])
    return figure


def _band(band: pd.DataFrame, colour: str) -> dict[str, Any]:
    """The area between a curve's lower and upper edge, on the axes of ORR and RR."""
    low, high, overall = (band[name].to_numpy() for name in ("low", "high", "overall"))
    across = np.concatenate([2 * overall - low, (2 * overall - high)[::-1]])
    look = {"fill": "toself", "fillcolor": colour, "opacity": 0.12, "line": {"width": 0}, "mode": "lines"}
    return {"x": across, "y": np.concatenate([low, high[::-1]]), "hoverinfo": "skip", "showlegend": False, **look}


def _curve(band: pd.DataFrame, label: str, look: Mapping[str, str]) -> dict[str, Any]:
    """A curve as a line, dashed where a category's marker is not the first, with its intervals in the hover text."""
    interval = "RR %{y:.2f} (95 % interval %{customdata[1]:.2f} to %{customdata[2]:.2f})"
    return {
        "x": (2 * band["overall"] - band["RR"]).to_numpy().round(4),
        "y": band["RR"].to_numpy().round(4),
        "mode": "lines",
        "line": {"color": look["color"], "width": 1.5, "dash": "dash" if look["symbol"] == "diamond" else "solid"},
        "customdata": band[["overall", "low", "high"]].to_numpy().round(4),
        "hovertemplate": f"{label}<br>overall refusal %{{customdata[0]:.3f}}<br>{interval}<extra></extra>",
        "showlegend": False,
    }


def add_published_rates(figure: go.Figure, table: pd.DataFrame, name: str) -> None:
    """Add a published table's points (`published_table` 11 or 12) to `tradeoff_curves`, hidden until clicked in the legend."""
    figure.add_scatter(
        x=table["over_refusal_rate"],
        y=table["refusal_rate"],
        text=table["split"] + ", alpha " + table["alpha"].astype(str),
        mode="markers",
        visible="legendonly",
        name=name,
        marker={"symbol": "x-thin-open", "color": "#222"},
    )


def interval_bars(
    frame: pd.DataFrame, *, title: str, y: str, chance: float, marks: Mapping[str, float] | None = None
) -> go.Figure:
    """One bar per row of `frame` (columns accuracy, low, high; shares), with its interval, and a line at `chance`.

    `marks` are further lines: heights by what is written at them.
    """
    figure = go.Figure()
    for name, row in frame.iterrows():
        up, down = row["high"] - row["accuracy"], row["accuracy"] - row["low"]
        error = {"type": "data", "symmetric": False, "array": [up], "arrayminus": [down]}
        figure.add_bar(
            x=[name], y=[row["accuracy"]], error_y=error, showlegend=False, marker_color="#0072B2", width=0.5
        )
    for label, height in {f"chance 1/{round(1 / chance)}": chance, **(marks or {})}.items():
        figure.add_hline(y=height, line={"dash": "dash", "color": "#444"}, annotation_text=label)
    figure.update_layout(template="refusal", width=720, height=480, title=title)
    return figure.update_yaxes(title=y, range=[0, 1])


def share_map(shares: pd.DataFrame, *, title: str, value: str) -> go.Figure:
    """Shares by category (rows, in their order) and the second level of the index (columns), coloured from 0 to 1.

    `shares` has columns share and interval (text for the hover), by (category id, column), as of `styles.style_shares`.
    """
    columns = list(shares.index.unique(1))
    rows = [name for name in CATEGORY_IDS if name in shares.index.unique(0)]
    table, intervals = (shares[name].unstack()[columns].loc[rows].to_numpy() for name in ("share", "interval"))
    figure = go.Figure(go.Heatmap(z=table, x=columns, y=titles(rows)))
    figure.update_traces(colorscale=SEQUENTIAL, zmin=0, zmax=1, texttemplate="%{z:.2f}", customdata=intervals)
    figure.update_traces(hovertemplate="%{y}<br>%{x}: %{z:.2f}<br>95 % interval %{customdata}<extra></extra>")
    figure.update_traces(colorbar={"title": {"text": value, "side": "right"}})
    return square_layout(figure, title).update_layout(height=620)
