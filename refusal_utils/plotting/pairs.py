"""Figures of pairs of categories: cosine maps, intervals, scatters against the published map, and dendrograms."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy.cluster.hierarchy import dendrogram

from ..prompts.categories import CATEGORY_IDS
from .look import BLUE, VERMILION, heatmap, heatmap_trace, square_layout


def heatmap_panels(panels: Mapping[str, pd.DataFrame], values: Sequence[str], *, title: str) -> go.Figure:
    """Maps of the categories side by side, titled by the keys of `panels`; the last one's colour bar stands for all.

    `values` names the quantity of each panel, its hook and layer. Raises `ValueError` for another number of these.
    """
    if len(values) != len(panels):
        raise ValueError(
            f"heatmap_panels: every panel must have a value; got {len(values)} for {len(panels)}. Name the quantity of each."
        )
    many = len(panels) > 2
    figure = make_subplots(1, len(panels), subplot_titles=list(panels), horizontal_spacing=0.1 if many else 0.13)
    for column, (frame, value) in enumerate(zip(panels.values(), values, strict=True), start=1):
        figure.add_trace(heatmap_trace(frame, value=value, showscale=column == len(panels)), 1, column)
    square_layout(figure, title, n_panels=len(panels))
    return figure.update_traces(textfont={"size": 9}) if many else figure


def heatmap_slider(frames: Mapping[int, pd.DataFrame], active: int, *, title: str, value: str) -> go.Figure:
    """One map of the categories at a time, moved through the layers (keys of `frames`) by a slider; `active` is shown."""
    figure = go.Figure([heatmap_trace(frame, value=value) for frame in frames.values()])
    for layer, trace in zip(frames, figure.data, strict=True):
        trace.visible = layer == active
    steps = [
        {"label": str(layer), "method": "update", "args": [{"visible": [other == layer for other in frames]}]}
        for layer in frames
    ]
    shown = list(frames).index(active)
    slider = {"active": shown, "currentvalue": {"prefix": "layer "}, "steps": steps, "pad": {"t": 130}}
    figure.update_layout(sliders=[slider])
    return square_layout(figure, title).update_layout(height=900)


def pair_map(values: pd.Series, diagonal: float = 1.0) -> pd.DataFrame:
    """The values of pairs (index of two category ids, each pair once, in either order) as a symmetric map.

    The map holds the eleven categories only; a pair that is not among the values is NaN.
    """
    half = values.unstack().reindex(index=list(CATEGORY_IDS), columns=list(CATEGORY_IDS))
    square = half.where(half.notna(), half.T)
    return square.mask(np.eye(len(CATEGORY_IDS), dtype=bool), diagonal)


def pair_intervals(pairs: pd.DataFrame, *, title: str, x: str) -> go.Figure:
    """A row per pair: its corrected cosine with the 95 % interval, and a stroke at the plain one.

    `pairs` has columns pair, raw, corrected, low and high (`profiles.pair_table`), and is drawn from below in its order.
    """
    figure = go.Figure()
    bars = {"array": pairs["high"] - pairs["corrected"], "arrayminus": pairs["corrected"] - pairs["low"]}
    figure.add_scatter(x=pairs["corrected"], y=pairs["pair"], mode="markers", name="corrected, 95 % interval")
    figure.update_traces(marker={"color": BLUE, "size": 7})
    figure.update_traces(error_x={**bars, "color": BLUE, "thickness": 1.2, "width": 0})
    stroke = {"color": VERMILION, "symbol": "line-ns", "size": 9, "line": {"color": VERMILION, "width": 2}}
    figure.add_scatter(x=pairs["raw"], y=pairs["pair"], mode="markers", name="plain", marker=stroke)
    figure.update_layout(template="refusal", width=900, height=1050, title=title)
    figure.update_xaxes(title=x, range=[pairs["low"].min() - 0.05, 1.02])
    return figure.update_yaxes(dtick=1, tickfont={"size": 10})


def pair_scatter(pairs: pd.DataFrame, *, title: str, x: str, y: str) -> go.Figure:
    """A point per pair: its published cosine across, its plain one here up (columns pair, published, raw)."""
    points = go.Scatter(x=pairs["published"], y=pairs["raw"], mode="markers", text=pairs["pair"])
    figure = go.Figure(points).update_traces(marker={"color": BLUE, "size": 8})
    figure.update_traces(hovertemplate="%{text}<br>published %{x:.2f}<br>here %{y:.2f}<extra></extra>")
    return figure.update_layout(template="refusal", width=760, height=640, title=title, xaxis_title=x, yaxis_title=y)


def tree_figure(tree: np.ndarray, names: Sequence[str], *, title: str, x: str) -> go.Figure:
    """A dendrogram lying on its side: `tree` is a linkage matrix (`clusters.cluster_tree`), `names` are its leaves'."""
    drawn = dendrogram(tree, labels=list(names), no_plot=True)
    figure = go.Figure()
    for across, up in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        figure.add_scatter(x=up, y=across, mode="lines", line={"color": "#444"}, hoverinfo="x", showlegend=False)
    figure.update_layout(template="refusal", width=820, height=480, title=title)
    figure.update_xaxes(title=x, range=[0, 1.03 * np.max(drawn["dcoord"])])
    return figure.update_yaxes(tickvals=np.arange(5, 10 * len(names), 10), ticktext=drawn["ivl"], showgrid=False)


def size_map(matrix: pd.DataFrame, *, title: str, value: str, largest: float) -> go.Figure:
    """A square map of numbers that have no sign (rows and columns category ids), coloured from 0 to `largest`.

    `value` names the quantity; it labels the colour bar and the hover text.
    """
    return heatmap(matrix, title=title, value=value, limits=(0, largest))
