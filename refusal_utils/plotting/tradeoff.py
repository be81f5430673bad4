"""Figures of steering: trade-off curves, and accuracies with their intervals."""

from collections.abc import Collection, Mapping

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go

from .look import BLUE, HEIGHT, LINE_LOOK, POINT_LOOK, WIDTH, label

AXES = {"ORR": "ORR: share of benign prompts refused", "RR": "RR: share of harmful prompts refused"}

BANDS = ("pooled", "control tokens", "proxy")


def tradeoff_figure(
    bands: pd.DataFrame, points: pd.DataFrame, *, title: str, published: Mapping[str, pd.DataFrame]
) -> go.Figure:
    """Refusal against over-refusal: the curves in `bands`, and a point for every direction and strength in `points`.

    `bands` has columns direction, overall, RR, low and high; `points` direction, gaps, RR and ORR. The hover text of a
    curve gives its interval, which is drawn for `BANDS` only, because a dozen overlapping bands cannot be told apart.
    `published` holds tables of the paper by their names in the legend, where a click shows their points.
    """
    curves = bands.assign(category=bands["direction"].map(label), ORR=2 * bands["overall"] - bands["RR"])
    figure, lines = _points(points, title), _lines(curves)
    keys = [_legend_entry(dots, lines) for dots in figure.data]
    areas = [_band(curves[curves["direction"] == line.name], line) for line in lines if line.name in BANDS]
    whole = go.Figure([*areas, *lines, *figure.data], figure.layout).update_traces(showlegend=False)
    whole.update_traces(marker={"size": 8}, selector={"mode": "markers"})
    whole.add_traces([*keys, *(_published(name, table) for name, table in published.items())])
    whole.update_xaxes(range=[-0.03, 1.03]).update_yaxes(range=[-0.03, 1.03])
    return whole.update_layout(legend={"title": "", "tracegroupgap": 0})


def _points(points: pd.DataFrame, title: str) -> go.Figure:
    return px.scatter(
        points.assign(category=points["direction"].map(label)),
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


def _lines(curves: pd.DataFrame) -> tuple[go.Scatter, ...]:
    return px.line(
        curves.round(4),
        x="ORR",
        y="RR",
        color="category",
        line_dash="category",
        hover_data={"overall": True, "low": True, "high": True},
        labels={"overall": "overall refusal rate", "low": "RR from (95 %)", "high": "RR to"},
        **LINE_LOOK,
    ).data


def _legend_entry(dots: go.Scatter, lines: Collection[go.Scatter]) -> go.Scatter:
    """An empty trace that shows the marker of `dots` in the legend, on its line if it has a curve."""
    line = next((each.line for each in lines if each.name == dots.name), None)
    marker = {"color": dots.marker.color, "symbol": dots.marker.symbol, "size": 8}
    key = go.Scatter(x=[None], y=[None], marker=marker, line=line, name=dots.name, legendgroup=dots.legendgroup)
    return key.update(mode="lines+markers" if line else "markers")


def _band(curve: pd.DataFrame, line: go.Scatter) -> go.Scatter:
    """The area between the lower and the upper edge of the curve drawn as `line`, on the axes of ORR and RR."""
    edge = pd.concat([curve.assign(RR=curve["low"]), curve.assign(RR=curve["high"])[::-1]])
    return go.Scatter(
        x=2 * edge["overall"] - edge["RR"],
        y=edge["RR"],
        fill="toself",
        fillcolor=line.line.color,
        opacity=0.12,
        mode="lines",
        line={"width": 0},
        hoverinfo="skip",
        name=line.name,
        legendgroup=line.legendgroup,
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
    """A bar per row of `frame` (shares: accuracy, low, high) with its interval, and labelled lines at `marks`."""
    figure = px.bar(
        frame,
        x=list(frame.index),
        y="accuracy",
        error_y=frame["high"] - frame["accuracy"],
        error_y_minus=frame["accuracy"] - frame["low"],
        range_y=[0, 1],
        title=title,
        labels={"accuracy": y, "x": ""},
        template="refusal",
        width=WIDTH,
        height=HEIGHT,
    )
    figure.update_traces(marker_color=BLUE, width=0.45)
    for text, height in marks.items():
        figure.add_hline(y=height, line={"dash": "dash", "color": "#444"}, annotation_text=text)
    return figure
