"""Figures of pairs of categories: cosine maps, intervals, scatters against the published map, and dendrograms."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy.cluster.hierarchy import dendrogram

from ..prompts.categories import CATEGORY_IDS, category_by_id
from .look import BLUE, DIVERGING, TITLES, VERMILION, WIDTH, bar_title

CLUSTER_COLOURS = {"within content policy": VERMILION, "within cannot comply": BLUE, "between clusters": "#777777"}


def heatmap_panels(panels: Mapping[str, pd.DataFrame], *, value: str, title: str, pairwise: bool = False) -> go.Figure:
    """Maps of the categories, titled by the keys of `panels`: two side by side, more than two in a column.

    `value` names the quantity; the titles of the panels name hook and layer. `pairwise` puts two into every row.
    """
    names, stacked = list(panels), len(panels) > 2
    if stacked and pairwise:
        return _panel_rows(panels, value=value, title=title)
    arrangement = {"facet_col_wrap": 1, "facet_row_spacing": 0.03} if stacked else {"facet_col_spacing": 0.02}
    figure = _maps(panels, value=value, title=title, facet_col=0, **arrangement)
    for note in figure.layout.annotations:
        name = names[int(note.text.partition("=")[2])]
        note.update(text=name.replace(" (", "<br>("), font={"size": 14})
    figure.update_layout(height=240 + 330 * len(panels) if stacked else 640)
    return figure.update_traces(textfont_size=12 if stacked else 10)


def _panel_rows(panels: Mapping[str, pd.DataFrame], *, value: str, title: str) -> go.Figure:
    """`heatmap_panels` with two maps in every row; the lowest map of each column has the labels."""
    n_rows = (len(panels) + 1) // 2
    height = 200 + 430 * n_rows
    figure = make_subplots(
        n_rows, 2, subplot_titles=[name.replace(" (", "<br>(") for name in panels],
        horizontal_spacing=0.02, vertical_spacing=75 / (height - 330),
    )  # fmt: skip
    for number, frame in enumerate(panels.values()):
        row, column = number // 2 + 1, number % 2 + 1
        one = _maps({"": frame}, value=value, title=title, animation_frame=0)
        figure.add_trace(one.data[0].update(coloraxis="coloraxis"), row, column)
        lowest, leftmost = number + 2 >= len(panels), column == 1
        figure.update_xaxes(showticklabels=lowest, tickangle=-45, showgrid=False, row=row, col=column)
        figure.update_yaxes(
            showticklabels=leftmost, autorange="reversed", showgrid=False, ticks="", row=row, col=column
        )
    figure.update_layout(template="refusal", title=title, width=WIDTH, height=height)
    figure.update_layout(coloraxis=one.layout.coloraxis, margin={"t": 105, "b": 200})
    return figure.update_annotations(font_size=14).update_traces(textfont_size=10)


def heatmap_slider(frames: Mapping[int, pd.DataFrame], active: int, *, title: str, value: str) -> go.Figure:
    """One map of the categories at a time; a slider moves through the layers, the keys of `frames`."""
    # Steps that restyle: frames of an animation raise errors in the browser when a slider moves faster than it draws.
    figure = _maps({active: frames[active]}, value=value, title=title, animation_frame=0)
    figure.frames = []
    steps = [
        {"label": str(layer), "method": "restyle", "args": [{"z": [frame.to_numpy().round(4).tolist()]}]}
        for layer, frame in frames.items()
    ]
    slider = {"active": list(frames).index(active), "currentvalue": {"prefix": "layer "}, "pad": {"t": 130}}
    figure.layout.sliders = [{**slider, "steps": steps}]
    figure.layout.updatemenus = None
    return figure.update_layout(height=860)


def _maps(maps: Mapping, *, value: str, title: str, **arrangement: Any) -> go.Figure:
    """Zero-centred maps of categories in one figure of plotly express, arranged in facets or frames."""
    first = next(iter(maps.values()))
    figure = px.imshow(
        np.stack([each.to_numpy(dtype=np.float32).round(4) for each in maps.values()]),
        x=[TITLES.get(name, name) for name in first.columns],
        y=[TITLES.get(name, name) for name in first.index],
        labels={"x": "", "y": "", "color": value},
        color_continuous_scale=DIVERGING,
        zmin=-1,
        zmax=1,
        text_auto=".2f",
        aspect="auto",
        title=title,
        template="refusal",
        width=WIDTH,
        **arrangement,
    )
    figure.update_coloraxes(colorbar_title=bar_title(value))
    figure.update_layout(margin={"t": 90})
    return figure.update_xaxes(tickangle=-45, showgrid=False).update_yaxes(showgrid=False, ticks="")


def pair_map(values: pd.Series, diagonal: float = 1.0) -> pd.DataFrame:
    """The values of pairs (index of two category ids, each pair once, in either order) as a symmetric map.

    The map has only categories, in the order of the eleven; a pair that is not among the values is NaN.
    """
    known = {name for pair in values.index for name in pair}
    names = [name for name in CATEGORY_IDS if name in known]
    half = values.unstack().reindex(index=names, columns=names)
    square = half.where(half.notna(), half.T)
    return square.mask(np.eye(len(names), dtype=bool), diagonal)


def pair_intervals(pairs: pd.DataFrame, *, title: str, x: str) -> go.Figure:
    """A row per pair: its corrected cosine with the 95 % interval, coloured by cluster, and a stroke at the plain one.

    `pairs` has the index `first`, `second` and the columns pair, raw, corrected, low and high; its first row is drawn
    at the bottom.
    """
    ends = {"above": pairs["high"] - pairs["corrected"], "below": pairs["corrected"] - pairs["low"]}
    figure = px.scatter(
        pairs.assign(clusters=_clusters(pairs), **ends),
        x="corrected",
        y="pair",
        error_x="above",
        error_x_minus="below",
        color="clusters",
        color_discrete_map=CLUSTER_COLOURS,
        category_orders={"pair": list(pairs["pair"][::-1])},
        labels={"corrected": x, "pair": "", "clusters": "corrected, 95 % interval"},
        title=title,
        template="refusal",
        width=WIDTH,
        height=150 + 21 * len(pairs),
    )
    figure.update_traces(marker_size=8, error_x={"thickness": 1.6, "width": 0})
    stroke = {"symbol": "line-ns", "size": 9, "line": {"color": "#111", "width": 2}}
    figure.add_scatter(x=pairs["raw"], y=pairs["pair"], mode="markers", name="plain cosine", marker=stroke)
    figure.update_layout(
        legend={"x": 0.99, "xanchor": "right", "y": 0.02, "yanchor": "bottom", "bordercolor": "#ccc", "borderwidth": 1}
    )
    figure.update_yaxes(dtick=1, tickfont_size=12, range=[-0.8, len(pairs) - 0.2])
    return figure.update_xaxes(range=[pairs["low"].min() - 0.05, 1.02])


def pair_scatter(pairs: pd.DataFrame, *, title: str, x: str, y: str) -> go.Figure:
    """A point per pair, coloured by cluster: x is its published cosine, y its plain one (columns published, raw).

    The four pairs that lie furthest from the least-squares line are named.
    """
    figure = px.scatter(
        pairs.assign(clusters=_clusters(pairs)),
        x="published",
        y="raw",
        color="clusters",
        symbol="clusters",
        color_discrete_map=CLUSTER_COLOURS,
        symbol_map=dict(zip(CLUSTER_COLOURS, ("circle", "diamond", "x"), strict=True)),
        hover_name="pair",
        labels={"published": x, "raw": y, "clusters": "pair"},
        title=title,
        template="refusal",
        width=WIDTH,
        height=620,
    )
    off = pairs["raw"] - np.polyval(np.polyfit(pairs["published"], pairs["raw"], 1), pairs["published"])
    for pair in off.abs().nlargest(4).index:
        at, above = pairs.loc[pair], off[pair] > 0
        note = {"text": at["pair"], "yshift": 6 if above else -6, "yanchor": "bottom" if above else "top"}
        figure.add_annotation(x=at["published"], y=at["raw"], showarrow=False, font_size=11, **note)
    return figure.update_traces(marker_size=9)


def _clusters(pairs: pd.DataFrame) -> list[str]:
    both = ({category_by_id(name).cluster for name in pair} for pair in pairs.index)
    return [f"within {min(each)}" if len(each) == 1 else "between clusters" for each in both]


def tree_figure(tree: np.ndarray, names: Sequence[str], *, title: str, x: str) -> go.Figure:
    """A dendrogram with its leaves on the left, from a linkage matrix (`Clusters.tree`) and the names of its leaves."""
    drawn = dendrogram(tree, labels=list(names), no_plot=True)
    figure = go.Figure()
    for across, up in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        figure.add_scatter(x=up, y=across, mode="lines", line={"color": "#444"}, hoverinfo="x", showlegend=False)
    figure.update_layout(template="refusal", width=WIDTH, height=480, title=title)
    figure.update_xaxes(title=x, range=[0, 1.03 * np.max(drawn["dcoord"])])
    return figure.update_yaxes(tickvals=np.arange(5, 10 * len(names), 10), ticktext=drawn["ivl"], showgrid=False)
