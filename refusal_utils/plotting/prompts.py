"""Figures of the prompt sets: how many prompts each category has, and how long they are."""

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go

from ..prompts.categories import ALL_CATEGORIES
from .look import BLUE, HEIGHT, LOOK, ORANGE, WIDTH, label

_TICKS = [factor * 10**power for power in range(6) for factor in (1, 2, 5)]


def size_bars(sizes: pd.DataFrame, pools: pd.Series, *, title: str) -> go.Figure:
    """Bars on a logarithmic scale for each category (rows of `sizes`), one colour per column, with strokes at `pools`.

    `pools` has a size for each category, and its name is the entry in the legend.
    """
    wide = sizes.rename(index=label).rename_axis("category").reset_index()
    figure = px.bar(
        wide.melt("category", var_name="split", value_name="prompts"),
        x="category",
        y="prompts",
        color="split",
        barmode="group",
        log_y=True,
        labels={"category": "", "prompts": "prompts (log scale)", "split": ""},
        color_discrete_sequence=[BLUE, ORANGE],
        title=title,
        template="refusal",
        width=WIDTH,
        height=HEIGHT,
    )
    stroke = {"symbol": "line-ew-open", "size": 22, "color": "#222", "line": {"width": 2}}
    names = [label(str(name)) for name in pools.index]
    figure.add_scatter(x=names, y=pools.to_numpy(), mode="markers", name=str(pools.name), marker=stroke)
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    return figure.update_xaxes(tickangle=-35).update_yaxes(tickvals=_TICKS)


def length_boxes(words: pd.DataFrame, *, title: str) -> go.Figure:
    """A box of the number of words for each category and the benign prompts (`words`: columns category, words)."""
    figure = px.box(
        words.assign(category=words["category"].map(label)),
        x="category",
        y="words",
        color="category",
        points=False,
        labels={"category": "", "words": "words in the prompt"},
        title=title,
        **LOOK | {"category_orders": {"category": [label(name) for name in ALL_CATEGORIES]}},
    )
    return figure.update_traces(offsetgroup="all").update_layout(showlegend=False).update_xaxes(tickangle=-35)
