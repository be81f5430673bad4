"""Maps of numbers other than cosines: heads by layer, distances, shares with their intervals."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from .categories import CATEGORIES, CATEGORY_IDS
from .plots import DIVERGING, SEQUENTIAL, heatmap_trace, square_layout, titles


def head_maps(
    contribution: Float[Tensor, "layer head_index category"],
    p_values: Float[Tensor, "layer head_index category"],
    *,
    title: str,
    value: str,
) -> go.Figure:
    """What every head contributes to one category's direction at a time, chosen in a menu; a star where p < 0.05.

    All categories share one colour scale, centred on zero. `value` names the quantity, its hook, layer and position.
    """
    figure = go.Figure()
    limit = float(contribution.abs().max())
    for c, category in enumerate(CATEGORIES):
        stars = np.where(p_values[..., c] < 0.05, "*", "")
        hover = category.title + "<br>layer %{y}, head %{x}<br>%{z:.3f}<extra></extra>"
        look = {"text": stars, "texttemplate": "%{z:.2f}%{text}", "colorscale": DIVERGING, "hovertemplate": hover}
        figure.add_heatmap(z=contribution[..., c].numpy(), visible=c == 0, **look)
    figure.update_traces(zmin=-limit, zmid=0, zmax=limit, colorbar={"title": {"text": value, "side": "right"}})
    names = [category.title for category in CATEGORIES]
    buttons = [
        {"label": name, "method": "update", "args": [{"visible": [other == name for other in names]}]} for name in names
    ]
    figure.update_layout(template="refusal", width=900, height=560, title=title)
    figure.update_layout(updatemenus=[{"buttons": buttons, "x": 1.0, "xanchor": "right", "y": 1.14}])
    figure.update_xaxes(title="head_index", dtick=1, showgrid=False)
    return figure.update_yaxes(title="layer", dtick=1, showgrid=False)


def size_map(matrix: pd.DataFrame, *, title: str, value: str, largest: float) -> go.Figure:
    """A square map of numbers that have no sign (rows and columns category ids), coloured from 0 to `largest`.

    `value` names the quantity; it labels the colour bar and the hover text.
    """
    figure = go.Figure(heatmap_trace(matrix, value=value))
    figure.update_traces(zmin=0, zmid=None, zmax=largest, colorscale=SEQUENTIAL)
    return square_layout(figure, title)


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
