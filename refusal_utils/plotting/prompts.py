"""Figures of the prompt sets: sizes and lengths by category."""

import pandas as pd
import plotly.graph_objects as go

from ..prompts.categories import BENIGN, CATEGORIES
from .look import BLUE, ORANGE, VERMILION, titles


def category_bars(frame: pd.DataFrame, marks: pd.Series, *, title: str, y: str) -> go.Figure:
    """Bars on a logarithmic scale for every category (rows of `frame`), one series per column, and a dash at `marks`.

    `marks` has a number per category, in the order of the rows, and is named as the legend shows it.
    """
    names = titles(list(frame.index))
    figure = go.Figure()
    for column, colour in zip(frame, (BLUE, ORANGE, VERMILION), strict=False):
        figure.add_bar(x=names, y=frame[column].to_numpy(), name=str(column), marker_color=colour)
    dash = {"symbol": "line-ew-open", "size": 22, "color": "#222", "line": {"width": 2}}
    figure.add_scatter(x=names, y=marks.to_numpy(), mode="markers", name=str(marks.name), marker=dash)
    figure.update_layout(template="refusal", barmode="group", width=980, height=520, title=title, xaxis_tickangle=-35)
    return figure.update_yaxes(title=f"{y} (log scale)", type="log")


def category_boxes(frame: pd.DataFrame, column: str, *, title: str, y: str) -> go.Figure:
    """A box of the values in `column` for every category, in their colours, and last a grey one for the benign prompts."""
    figure = go.Figure()
    known = [(each.id, each.title, each.colour) for each in CATEGORIES] + [(BENIGN, "Benign", "#999999")]
    for id, name, colour in known:
        own = frame.loc[frame["category"] == id, column].to_numpy()
        figure.add_box(y=own, name=name, marker_color=colour, boxpoints=False)
    figure.update_layout(template="refusal", width=980, height=520, showlegend=False, title=title)
    return figure.update_layout(yaxis_title=y, xaxis_tickangle=-35)
