"""Figures of attention heads: contributions, parts of the gap, and refusals after replacing heads."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from .look import BLUE, DIVERGING, LOOK, ORANGE, TITLES, VERMILION, WIDTH, titles

N_COLUMNS = 4
MOST_NUMBERS = 64  # the most heads for which a map prints its numbers
SMALL = 0.1  # numbers below this part of the largest are left out of the cells


def head_maps(
    contribution: Float[Tensor, "layer head_index category"],
    p_values: Float[Tensor, "layer head_index category"],
    categories: Sequence[str],
    *,
    title: str,
    value: str,
) -> go.Figure:
    """A map of layers and heads for each category, all on one colour scale centred on zero; a star marks p < 0.05.

    The p-values are adjusted over the heads of a category. `value` names the quantity, its hook, layer and position; it
    labels the colour bar. Cells hold their numbers unless these are small or there are too many heads.
    """
    n_layers, n_heads, _ = contribution.shape
    names, limit = titles(list(categories)), float(contribution.abs().max())
    look = {"color_continuous_scale": DIVERGING, "range_color": (-limit, limit), "origin": "lower", "aspect": "auto"}
    axes = {"x": "head_index", "y": "layer", "color": value}
    values = contribution.permute(2, 0, 1).numpy()
    figure = px.imshow(values, facet_col=0, facet_col_wrap=N_COLUMNS, facet_row_spacing=0.08, labels=axes, **look)
    for trace in figure.data:
        stars = np.where(p_values[..., int(trace.name)] < 0.05, "*", "")
        large = (np.abs(trace.z) >= SMALL * limit) & (n_layers * n_heads <= MOST_NUMBERS)
        numbers = np.where(large, np.char.mod("%.2f", trace.z), "")
        trace.update(text=np.char.add(numbers, stars), texttemplate="%{text}", textfont_size=10)
    for note in figure.layout.annotations:
        note.text = names[int(note.text.split("=")[1])]
    n_rows = -(-len(names) // N_COLUMNS)
    height = 160 + n_rows * max(240, 12 * n_layers)
    note = f"*: FDR 5 % over the heads of a category; numbers below {SMALL * limit:.2f} are left out"
    titled = {"title": title, "title_subtitle_text": note}
    figure.update_layout(template="refusal", **titled, width=WIDTH, height=height, margin_t=100)
    figure.update_xaxes(dtick=max(1, n_heads // 8), showgrid=False, showticklabels=True)
    return figure.update_yaxes(dtick=max(1, n_layers // 8), showgrid=False)


def part_bars(parts: pd.DataFrame, *, title: str, value: str) -> go.Figure:
    """A stacked bar per category (index of `parts`), divided by the columns, without those that are zero throughout."""
    written = parts.loc[:, parts.abs().max() > 1e-3]
    long = _long(written, "written by", value)
    look = {**LOOK, "color_discrete_map": {}, "title": title}
    return px.bar(long, x=value, y="category", color="written by", orientation="h", **look).update_yaxes(title="")


def outcome_dots(shares: pd.DataFrame, *, title: str, value: str) -> go.Figure:
    """A row per category (index of `shares`) and a marker per column, one below the other, from 0 to 1."""
    figure = px.scatter(
        _long(shares, "heads", value),
        x=value,
        y="category",
        color="heads",
        symbol="heads",
        color_discrete_sequence=["#444444", VERMILION, ORANGE, BLUE, "#56B4E9"],
        symbol_sequence=["circle-open", "circle", "diamond-open", "square", "square-open"],
        title=title,
        **{**LOOK, "height": 760, "color_discrete_map": {}},
    )
    figure.update_traces(orientation="h", marker={"size": 9, "line": {"width": 2}})
    figure.update_layout(scattermode="group", scattergap=0.3)  # dots with equal shares do not overlap
    return figure.update_xaxes(range=[-0.03, 1.03]).update_yaxes(title="")


def _long(table: pd.DataFrame, columns: str, value: str) -> pd.DataFrame:
    """A row per cell of `table`, whose index has category ids: columns category (title), `columns` and `value`."""
    named = table.rename(index=TITLES).rename_axis("category").reset_index()
    return named.melt("category", var_name=columns, value_name=value)
