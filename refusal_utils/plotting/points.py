"""Prompts as points, with menus and sliders in plain plotly: they work in any notebook and in a saved file."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
from jaxtyping import Float

from ..prompts.categories import CATEGORIES
from .look import LOOK, POINT_LOOK, TITLES, add_menu, label, titles

OUTCOME_COLOURS = {"refused": "#D55E00", "answered": "#0072B2", "broken": "#777777", "not judged": "#BBBBBB"}


def embedding_scatter(frame: pd.DataFrame, *axes: str, where: str, title: str) -> go.Figure:
    """Prompts (rows of `frame`: id, category, outcome, and the columns `axes`, two or three) as points.

    `where` names hook, layer and position. There is one trace per category, benign prompts first; markers are filled
    if the model refused and open if it did not. A menu shows one category with the benign prompts.
    """
    rows = frame.assign(category=frame["category"].map(label)).round(dict.fromkeys(axes, 3))
    rows = rows.iloc[np.argsort(rows["outcome"] != "refused", kind="stable")]  # the legend shows a trace's first marker
    solid = len(axes) == 3
    figure = (px.scatter_3d if solid else px.scatter)(
        rows,
        **dict(zip("xyz", axes, strict=False)),
        color="category",
        hover_name="id",
        hover_data={"category": True, "outcome": True},
        labels={} if solid else {axis: f"{axis}, {where}" for axis in axes},
        title=title,
        **{**LOOK, "height": 680, "category_orders": {"category": ["Benign", *TITLES.values()]}},
    )
    for trace in figure.data:
        symbol = POINT_LOOK["symbol_map"][trace.name]
        refused = rows.loc[rows["category"] == trace.name, "outcome"] == "refused"
        trace.update(legendgroup=trace.name, marker={"symbol": np.where(refused, symbol, f"{symbol}-open")})
    figure.update_traces(marker={"size": 4 if solid else 7, "opacity": 0.75})
    notes = [where] * solid + ["filled: refused, open: not refused"] * (rows["outcome"].nunique() > 1)
    figure.update_layout(title_subtitle_text=", ".join(notes), legend_itemsizing="constant")
    if solid:  # the axis titles of a cube stay short, since they run along its edges
        camera = {"eye": {"x": 1.55, "y": 1.55, "z": 0.7}, "center": {"z": -0.12}}
        figure.update_layout(margin={"l": 0, "b": 20}, scene={"camera": camera, "aspectmode": "cube"})
    return _add_category_menu(figure)


def _add_category_menu(figure: go.Figure) -> go.Figure:
    groups = [trace.legendgroup for trace in figure.data]
    shown = {name: [group in (name, "Benign") for group in groups] for name in dict.fromkeys(groups)}
    return add_menu(figure, {"all categories": [True] * len(groups), **shown})


def add_arrows(
    figure: go.Figure, start: Float[np.ndarray, " rank"], tips: Mapping[str, Float[np.ndarray, " rank"]]
) -> go.Figure:
    """`figure`, an `embedding_scatter` in a plane, with an arrow per category in `tips` from `start` to its tip.

    An arrow has the colour of its category and is named in the hover text; it is shown and hidden with the category.
    """
    figure.update_traces(marker={"opacity": 0.4})
    for category in (each for each in CATEGORIES if each.id in tips):
        tip = tips[category.id]
        arrow: dict[str, Any] = {"x": [start[0], tip[0]], "y": [start[1], tip[1]], "name": category.title}
        arrow |= {"legendgroup": category.title, "showlegend": False}
        head = {"symbol": ["circle", "arrow"], "size": [0, 16], "angleref": "previous"}
        halo, shaft = {"color": "white", "width": 7}, {"color": category.colour, "width": 3}
        figure.add_scatter(**arrow, mode="lines", line=halo, hoverinfo="skip")
        figure.add_scatter(
            **arrow,
            mode="lines+markers",
            marker={**head, "color": category.colour, "opacity": 1},
            line=shaft,
            hovertemplate=f"direction of {category.title}<extra></extra>",
        )
    return _add_category_menu(figure)


def coordinate_slider(
    figure: go.Figure, ids: pd.Series, steps: Mapping[str, Float[np.ndarray, "prompt 2"]], active: int, prefix: str
) -> go.Figure:
    """`figure`, an `embedding_scatter` of the prompts `ids`, with a slider that moves them.

    `steps` maps the label of each step to the coordinates of all prompts, in the order of `ids`.
    """
    rows = [pd.Index(ids).get_indexer(trace.hovertext) for trace in figure.data]
    moves = {
        name: {axis: [values[own, number].tolist() for own in rows] for number, axis in enumerate("xy")}
        for name, values in steps.items()
    }
    buttons = [{"label": name, "method": "restyle", "args": [move]} for name, move in moves.items()]
    slider = {"active": active, "currentvalue": {"prefix": prefix}, "steps": buttons, "pad": {"t": 60}}
    return figure.update_layout(sliders=[slider], height=760)


def projection_scatter(points: pd.DataFrame, projected: pd.DataFrame, *, where: str, title: str) -> go.Figure:
    """Prompts (rows: id, category, outcome) along any two directions (columns of `projected`), chosen in two menus.

    There is one trace per outcome; histograms on the margins count its prompts. `where` names hook, layer and position.
    Points are rounded to a hundredth of the smallest range.
    """
    decimals = 2 - int(np.floor(np.log10(np.ptp(projected, axis=0).min())))
    values = projected.astype(np.float64).round(decimals).set_axis(titles(list(projected)), axis=1)
    names = list(values)
    figure = px.scatter(
        points.join(values),
        x=names[0],
        y=names[1],
        color="outcome",
        color_discrete_map=OUTCOME_COLOURS,
        category_orders={"outcome": list(OUTCOME_COLOURS)},
        marginal_x="histogram",
        marginal_y="histogram",
        hover_name="id",
        hover_data=["category"],
        opacity=0.65,
        title=title,
        template="refusal",
        width=LOOK["width"],
        height=720,
    )
    menus = [_projection_menu(figure, axis, values, points["outcome"], where) for axis in "xy"]
    figure.update_layout(updatemenus=menus, margin={"r": 270}, legend={"x": 1.04, "y": 0.8})
    figure.update_layout(xaxis_title=f"along {names[0]}, {where}", yaxis_title=f"along {names[1]}, {where}")
    return figure.update_layout({axis: {"title": "prompts", "showticklabels": True} for axis in ("xaxis2", "yaxis3")})


def _projection_menu(figure: go.Figure, axis: str, values: pd.DataFrame, outcomes: pd.Series, where: str) -> dict:
    """A menu that moves the points and the histogram of one axis to another direction."""
    traces = [number for number, trace in enumerate(figure.data) if trace[axis] is not None]
    rows = [outcomes == figure.data[number].name for number in traces]
    buttons = []
    for name, column in values.items():
        moved, heading = [column[own].tolist() for own in rows], {f"{axis}axis.title.text": f"along {name}, {where}"}
        buttons.append({"label": f"{axis}: {name}", "method": "update", "args": [{axis: moved}, heading, traces]})
    active = "xy".index(axis)
    return {"buttons": buttons, "x": 1.04, "xanchor": "left", "y": 0.6 - 0.1 * active, "active": active}
