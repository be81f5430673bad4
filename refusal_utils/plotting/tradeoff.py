"""Figures of steering: trade-off curves, and accuracies with their intervals."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go

from .look import BLUE, HEIGHT, LINE_LOOK, POINT_LOOK, WIDTH, direction_look, label

AXES = {"ORR": "ORR: share of benign prompts refused", "RR": "RR: share of harmful prompts refused"}


def tradeoff_figure(
    bands: pd.DataFrame,
    points: pd.DataFrame,
    *,
    title: str,
    banded: Collection[str] = ("pooled",),
    published: Mapping[str, pd.DataFrame] | None = None,
) -> go.Figure:
    """Refusal against over-refusal: the curves in `bands`, and a point for every direction and strength in `points`.

    `bands` has columns direction, overall, RR, low and high; `points` direction, gaps, RR and ORR. The hover text of a
    curve gives its interval. The interval is drawn as a band for the directions in `banded` only, because a dozen
    overlapping bands cannot be told apart. Controls of one kind share a marker and a legend entry. `published` has
    tables of the paper by their name in the legend, where a click shows their points.
    """
    curves = bands.assign(category=bands["direction"].map(label), ORR=2 * bands["overall"] - bands["RR"])
    dots = points.assign(category=points["direction"].map(label))
    figure = px.scatter(
        dots,
        x="ORR",
        y="RR",
        color="category",
        symbol="category",
        hover_name="direction",
        hover_data={"gaps": True, "category": False},
        title=title,
        labels=AXES,
        **{**POINT_LOOK, "height": 720},
    )
    lines = px.line(
        curves.round(4),
        x="ORR",
        y="RR",
        color="category",
        line_dash="category",
        hover_data={"overall": True, "low": True, "high": True},
        labels={"overall": "overall refusal rate", "low": "RR from (95 %)", "high": "RR to"},
        **LINE_LOOK,
    )
    keys = [_legend_entry(dot, lines.data) for dot in figure.data]
    areas = [_band(curves[curves["direction"] == name], name) for name in banded if name in set(curves["direction"])]
    whole = go.Figure([*areas, *lines.data, *figure.data], figure.layout).update_traces(showlegend=False)
    whole.update_traces(marker={"size": 8}, selector={"mode": "markers"})
    whole.add_traces([*keys, *(_published(name, table) for name, table in (published or {}).items())])
    whole.update_xaxes(range=[-0.03, 1.03]).update_yaxes(range=[-0.03, 1.03])
    return whole.update_layout(legend={"title": "", "tracegroupgap": 0})


def _legend_entry(dots: go.Scatter, lines: Collection[go.Scatter]) -> go.Scatter:
    """An empty trace that shows the marker of `dots` in the legend, on its line if it has a curve."""
    line = next((each.line for each in lines if each.name == dots.name), None)
    mode = "lines+markers" if line else "markers"
    marker = {"color": dots.marker.color, "symbol": dots.marker.symbol, "size": 8}
    return go.Scatter(
        x=[None], y=[None], mode=mode, marker=marker, line=line, name=dots.name, legendgroup=dots.legendgroup
    )


def _band(curve: pd.DataFrame, name: str) -> go.Scatter:
    """The area between a curve's lower and upper edge, on the axes of ORR and RR."""
    low, high, overall = (curve[column].to_numpy() for column in ("low", "high", "overall"))
    return go.Scatter(
        x=np.concatenate([2 * overall - low, (2 * overall - high)[::-1]]),
        y=np.concatenate([low, high[::-1]]),
        fill="toself",
        fillcolor=direction_look(name)["color"],
        opacity=0.12,
        mode="lines",
        line={"width": 0},
        hoverinfo="skip",
        name=label(name),
        legendgroup=label(name),
    )


def _published(name: str, table: pd.DataFrame) -> go.Scatter:
    """The points of a published table of refusal rates, hidden until its legend entry is clicked."""
    return go.Scatter(
        x=table["over_refusal_rate"],
        y=table["refusal_rate"],
        text=table["split"] + ", alpha " + table["alpha"].astype(str),
        mode="markers",
        marker={"symbol": "x-thin-open", "color": "#222"},
        visible="legendonly",
        name=name,
    )


def interval_bars(frame: pd.DataFrame, *, title: str, y: str, marks: Mapping[str, float]) -> go.Figure:
    """One bar per row of `frame` (columns accuracy, low, high) with its interval, and labelled lines at `marks`."""
    bars = (
        frame.rename_axis("")
        .reset_index()
        .assign(
            up=frame["high"].to_numpy() - frame["accuracy"].to_numpy(),
            down=frame["accuracy"].to_numpy() - frame["low"].to_numpy(),
        )
    )
    figure = px.bar(
        bars,
        x="",
        y="accuracy",
        error_y="up",
        error_y_minus="down",
        range_y=[0, 1],
        title=title,
        labels={"accuracy": y},
        template="refusal",
        width=WIDTH,
        height=HEIGHT,
    )
    figure.update_traces(marker_color=BLUE, width=0.45)
    for text, height in marks.items():
        figure.add_hline(y=height, line={"dash": "dash", "color": "#444"}, annotation_text=text)
    return figure
