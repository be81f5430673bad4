"""Prompts as points: scatters with menus and sliders in plain plotly, which work in any notebook and as a file."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..prompts.categories import CATEGORIES, Category
from .look import titles

PLOT_PIXELS = (560, 460)  # of the 900 x 640 of `embedding_scatter`, without margins, legend and the room around points
LABEL_PIXELS = (5.5, 13)  # a character's width and a line's height in `add_arrow`
OUTCOME_COLOURS = {"refused": "#D55E00", "answered": "#0072B2", "broken": "#777777"}
N_BINS = 40


def embedding_scatter(frame: pd.DataFrame, *axes: str, where: str, title: str) -> go.Figure:
    """Prompts (rows of `frame`: id, category, outcome, and the columns `axes`, two or three) as points.

    `where` names hook, layer and position. One trace per category, benign first and grey; filled where the model
    refused, open where it did not. A menu shows one category beside the benign prompts. Hover shows id, category,
    outcome and the coordinates. Behind these traces stands one per category without points, for the legend.
    """
    figure = go.Figure()
    letters = dict(zip("xyz", axes, strict=False))
    known = [("benign", "Benign", "#999999", "circle")] + [(c.id, c.title, c.colour, c.marker) for c in CATEGORIES]
    shown = [look for look in known if (frame["category"] == look[0]).any()]
    trace = go.Scatter3d if len(axes) == 3 else go.Scatter
    for id, name, colour, marker in shown:
        rows = frame[frame["category"] == id]
        symbol = np.where(rows["outcome"] == "refused", marker, f"{marker}-open")
        values = {letter: rows[axis].to_numpy(dtype=np.float32).round(3) for letter, axis in letters.items()}
        look = {"color": colour, "symbol": symbol, "size": 3 if len(axes) == 3 else 6, "opacity": 0.8}
        hover = ", ".join(f"{axis} %{{{letter}:.2f}}" for letter, axis in letters.items())
        figure.add_trace(
            trace(
                **values,
                mode="markers",
                name=name,
                legendgroup=id,
                showlegend=False,
                text=rows["id"] + "<br>" + rows["outcome"],
                marker=look,
                hovertemplate=f"%{{text}}<br>{name}<br>{hover}<extra></extra>",
            )
        )
    for id, name, colour, marker in shown:  # a legend of the traces above would show how their first prompt is drawn
        nowhere = {letter: [None] for letter in letters}
        look = {"color": colour, "symbol": marker, "size": 6, "opacity": 0.8}
        figure.add_trace(trace(**nowhere, mode="markers", name=name, legendgroup=id, marker=look))
    titles_of = {f"{letter}axis": {"title": f"{axis}, {where}"} for letter, axis in letters.items()}
    figure.update_layout(template="refusal", width=900, height=640, title=title)
    figure.update_layout(scene=titles_of) if len(axes) == 3 else figure.update_layout(**titles_of)
    return _with_category_menu(figure, [name for _, name, _, _ in shown])


def _with_category_menu(figure: go.Figure, names: list[str]) -> go.Figure:
    shows = [("all categories", [True] * len(figure.data))]
    shows += [(name, [trace.name in (name, "Benign") for trace in figure.data]) for name in names]
    buttons = [{"label": label, "method": "restyle", "args": [{"visible": visible}]} for label, visible in shows]
    figure.update_layout(updatemenus=[{"buttons": buttons, "x": 1.02, "xanchor": "left", "y": 1.12}])
    figure.add_annotation(
        text="filled: refused, open: not", showarrow=False, xref="paper", yref="paper", x=0, y=1.06, font={"size": 12}
    )
    return figure


def add_arrows(figure: go.Figure, start: np.ndarray, tips: np.ndarray) -> None:
    """Draw the categories' arrows from `start` [2] to `tips` [category, 2], in data coordinates, titles clear of each other."""
    places = []
    for number, (axis, length) in enumerate(zip("xy", PLOT_PIXELS, strict=True)):
        drawn = [np.asarray(trace[axis], dtype=float) for trace in figure.data]
        known = np.concatenate([*drawn, tips[:, number], start[number : number + 1]])
        places.append(tips[:, number] * length / (np.nanmax(known) - np.nanmin(known)))
    shifts = label_shifts(np.stack(places, axis=1), [category.title for category in CATEGORIES])
    for category, tip, shift in zip(CATEGORIES, tips, shifts, strict=True):
        add_arrow(figure, start, tip, category, shift)


def label_shifts(places: np.ndarray, labels: list[str]) -> list[int]:
    """How many pixels above its place [label, 2], in pixels, each label is centred, so that none lies on another.

    Each as near its place as those before it allow: 9 above, else 9 below, and on by lines.
    """
    width, height = LABEL_PIXELS
    tries = [side * (9 + height * line) for line in range(len(labels) + 1) for side in (1, -1)]
    taken: list[tuple[float, float, float]] = []  # centre and half the width of every label placed
    shifts = []
    for (x, y), label in zip(places, labels, strict=True):
        half = width * len(label) / 2
        free = (t for t in tries if all(abs(x - a) >= half + h or abs(y + t - b) >= height for a, b, h in taken))
        shifts.append(next(free))
        taken.append((x, y + shifts[-1], half))
    return shifts


def add_arrow(figure: go.Figure, start: np.ndarray, tip: np.ndarray, category: Category, shift: int = 9) -> None:
    """Draw a category's arrow, in data coordinates [2], with its title centred `shift` pixels above the tip."""
    ends = {
        "x": tip[0],
        "y": tip[1],
        "ax": start[0],
        "ay": start[1],
        "axref": "x",
        "ayref": "y",
        "xref": "x",
        "yref": "y",
    }
    figure.add_annotation(**ends, arrowhead=2, arrowwidth=2, arrowcolor=category.colour, showarrow=True)
    figure.add_annotation(x=tip[0], y=tip[1], text=category.title, showarrow=False, yshift=shift, font={"size": 10})


def coordinate_slider(
    figure: go.Figure, frame: pd.DataFrame, steps: dict[str, np.ndarray], active: int, prefix: str
) -> go.Figure:
    """`figure`, an `embedding_scatter` of `frame`, with a slider that moves its prompts.

    `steps` maps each label to the coordinates [prompt, axis] of all rows of `frame`, in order.
    """
    drawn = [trace for trace in figure.data if trace.text is not None]  # those of the legend come after them
    order = [np.flatnonzero(frame["id"].isin({text.split("<br>")[0] for text in trace.text})) for trace in drawn]
    moves = [
        {axis: [values[rows, number].tolist() for rows in order] for number, axis in enumerate("xy")}
        for values in steps.values()
    ]
    slider = {
        "active": active,
        "currentvalue": {"prefix": prefix},
        "steps": [
            {"label": label, "method": "restyle", "args": [move, list(range(len(drawn)))]}
            for label, move in zip(steps, moves, strict=True)
        ],
        "pad": {"t": 60},
    }
    figure.update_layout(sliders=[slider], height=700)
    return figure.update_xaxes(autorange=True).update_yaxes(autorange=True)


def projection_scatter(points: pd.DataFrame, projected: pd.DataFrame, *, where: str, title: str) -> go.Figure:
    """Prompts (rows: id, category, outcome) along any two directions (columns of `projected`), chosen in two menus.

    One trace per outcome, and on the margins the number of its prompts along either direction: all outcomes and
    directions in the same bins. `where` names hook, layer, pos. Drawn to less than a hundredth of a direction's range.
    """
    figure = go.Figure()
    groups = {name: (points["outcome"] == name).to_numpy() for name in OUTCOME_COLOURS}
    groups = {name: rows for name, rows in groups.items() if rows.any()}
    values, decimals, bins = _drawn(projected.to_numpy(dtype=np.float64))
    for name, rows in groups.items():
        marker = {"color": OUTCOME_COLOURS[name], "size": 6, "opacity": 0.65}
        text = points["id"][rows] + ", " + points["category"][rows]
        tip = f"%{{text}}<br>{name}<br>x %{{x:.{decimals}f}}, y %{{y:.{decimals}f}}<extra></extra>"
        at = {"x": values[rows, 0], "y": values[rows, 1]}
        figure.add_scatter(**at, mode="markers", name=name, marker=marker, text=text, hovertemplate=tip)
        look = {"marker_color": marker["color"], "opacity": 0.6, "showlegend": False, "name": name}
        figure.add_histogram(x=at["x"], yaxis="y2", xbins=bins, **look)
        figure.add_histogram(y=at["y"], xaxis="x2", ybins=bins, **look)
    names = titles(list(projected.columns))
    menus = [_projection_menu(axis, names, values, list(groups.values()), where) for axis in "xy"]
    figure.update_layout(template="refusal", width=1040, height=720, title=title, barmode="overlay", updatemenus=menus)
    figure.update_layout(legend={"x": 1.02, "y": 0.8}, margin={"r": 270})
    figure.update_layout(xaxis={"domain": [0, 0.82], "title": f"along {names[0]}, {where}"})
    figure.update_layout(yaxis={"domain": [0, 0.8], "title": f"along {names[1]}, {where}"})
    figure.update_layout(xaxis2={"domain": [0.84, 1], "title": "prompts", "nticks": 4})
    figure.update_layout(yaxis2={"domain": [0.82, 1], "title": "prompts", "nticks": 4})
    return figure


def _drawn(values: np.ndarray) -> tuple[np.ndarray, int, dict[str, float]]:
    """`values` [prompt, direction] rounded, to keep the file small, to how many decimals, and bins that hold them all.

    The step is a power of ten, at most a hundredth of the smallest range; a bin is a whole number of steps wide and
    begins between two, so that rounding moves no value across an edge more often than across another.
    """
    decimals = -int(np.floor(np.log10(max(np.ptp(values, axis=0).min(), 1e-6) / 100)))
    step, rounded = 10.0**-decimals, values.round(decimals)
    size = step * max(1, np.ceil(np.ptp(rounded) / step / N_BINS))
    start = rounded.min() - step / 2
    n_bins = np.floor((rounded.max() - start) / size) + 1
    return rounded, max(decimals, 0), {"start": start, "end": start + size * n_bins, "size": size}


def _projection_menu(axis: str, names: list[str], values: np.ndarray, groups: list[np.ndarray], where: str) -> dict:
    margin = 1 if axis == "x" else 2
    traces = [3 * index + shift for index in range(len(groups)) for shift in (0, margin)]
    buttons = []
    for column, name in enumerate(names):
        moved = [values[rows, column].tolist() for rows in groups for _ in range(2)]
        label = {f"{axis}axis.title.text": f"along {name}, {where}"}
        buttons.append({"label": f"{axis}: {name}", "method": "update", "args": [{axis: moved}, label, traces]})
    active, height = (0, 0.62) if axis == "x" else (1, 0.52)
    return {"buttons": buttons, "x": 1.02, "xanchor": "left", "y": height, "active": active}
