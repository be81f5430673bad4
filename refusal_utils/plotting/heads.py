"""Figures of attention heads: their contributions by layer, and the tokens that one attends to."""

import html

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from ..prompts.categories import CATEGORIES
from .look import DIVERGING


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


def token_strip(tokens: list[str], weights: np.ndarray, title: str = "") -> str:
    """Tokens as plain HTML, the darker the larger their weight [token] (0 to 1); works offline and untrusted.

    >>> "&lt;b&gt;" in token_strip(["<b>"], np.array([1.0]))
    True
    """
    largest = max(float(np.max(weights)), 1e-9)
    style = "padding:2px 1px;border-radius:3px;font-family:monospace;white-space:pre-wrap"
    spans = [
        f'<span title="{weight:.3f}" style="{style};background:rgba(213,94,0,{weight / largest:.2f})">{html.escape(token)}</span>'
        for token, weight in zip(tokens, weights, strict=True)
    ]
    return f"<div><b>{html.escape(title)}</b><br>{''.join(spans)}</div>"
