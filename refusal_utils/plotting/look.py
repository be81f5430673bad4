"""One look for all figures: the template, and the colour, marker and line style of every category and control."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import plotly.io as pio

from ..prompts.categories import BENIGN, CATEGORIES, category_by_id

Limits = tuple[float | int, float | int]
WIDTH, HEIGHT = 1040, 560  # pixels: the width of a page
_PLOT_WIDTH, _PLOT_HEIGHT = 0.68, 0.7  # shares of a figure's width and height between the axes
# Pixels across from a point to its name, between names and markers, down, and of a letter; a line of text is 16 high.
_REACHES, _CLEAR, _OFFSETS, _LETTER = (40, 18), 11, (0, 16, -16, 32, -32, 48, -48), 6
DIVERGING, SEQUENTIAL = "RdBu_r", "Viridis"  # diverging maps are centred on 0
BLUE, VERMILION, ORANGE = "#0072B2", "#D55E00", "#E69F00"
TITLES = {category.id: category.title for category in CATEGORIES}
# Colour, marker and line style of controls, none of which has the colour or the marker of a category.
CONTROL_LOOKS = {
    "pooled": ("#222222", "star", "dot"),
    "random": ("#888888", "cross-open", "dot"),
    "covariance": ("#6a1b9a", "hexagon-open", "dashdot"),
    "control tokens": ("#00a37a", "hourglass", "solid"),
    "proxy": ("#00a37a", "bowtie", "dash"),
    "Benign": ("#999999", "square", "dot"),  # one of the few markers that 3-D plots draw filled and open
}
_LOOKS = {each.title: (each.colour, each.marker, each.dash) for each in CATEGORIES} | CONTROL_LOOKS
_COLOURS, _SYMBOLS, _DASH = ({name: look[part] for name, look in _LOOKS.items()} for part in range(3))

_AXIS = {"gridcolor": "#e5e5e5", "zeroline": False, "automargin": True, "title": {"standoff": 12, "font": {"size": 14}}}
pio.templates["refusal"] = go.layout.Template(
    layout=go.Layout(
        width=WIDTH,
        height=HEIGHT,
        font={"family": "Helvetica, Arial, sans-serif", "size": 13, "color": "#222"},
        title={"x": 0.02, "xanchor": "left", "y": 1, "yanchor": "top", "pad": {"t": 16}, "font": {"size": 18}},
        title_subtitle_font={"size": 13, "color": "#555"},
        colorway=[BLUE, ORANGE, VERMILION, "#009E73", "#CC79A7", "#56B4E9"],  # Okabe & Ito 2008
        paper_bgcolor="white",
        plot_bgcolor="white",
        margin={"l": 70, "r": 30, "t": 100, "b": 60},
        xaxis=_AXIS,
        yaxis=_AXIS,
        legend={"bgcolor": "rgba(255,255,255,0.8)", "title": {"font": {"size": 13}}},
        coloraxis={"colorbar": {"title": {"side": "right"}, "thickness": 16, "tickfont": {"size": 11}}},
    )
)
# Options of plotly express for frames whose column `category` has labels (`label`): bars and boxes, points, lines.
LOOK: dict[str, Any] = {
    "template": "refusal",
    "width": WIDTH,
    "height": HEIGHT,
    "category_orders": {"category": list(_LOOKS)},
    "color_discrete_map": _COLOURS,
}
POINT_LOOK = {**LOOK, "symbol_map": _SYMBOLS}
LINE_LOOK = {**POINT_LOOK, "line_dash_map": _DASH}


def label(name: str) -> str:
    """The label of a category id, of `"benign"`, or of a control, whose number is left out.

    >>> label("hate_speech"), label("benign"), label("random 3")
    ('Hate speech', 'Benign', 'random')
    """
    kind = name.rstrip("0123456789 ")
    return "Benign" if kind == BENIGN else TITLES.get(kind, kind)


def titles(categories: list[str]) -> list[str]:
    """The titles of category ids. Raises `ValueError` for an unknown one."""
    return [category_by_id(category).title for category in categories]


def heatmap(table: pd.DataFrame, *, title: str, value: str, limits: Limits = (-1.0, 1.0)) -> go.Figure:
    """A map of `table` with its numbers in the cells; category ids in its index and columns become titles.

    `value` names the quantity, its hook and layer. The colours diverge from 0 if the lower limit is negative.
    """
    figure = px.imshow(
        table.rename(index=TITLES, columns=TITLES).astype(np.float32).round(4),
        labels={"x": table.columns.name or "", "y": table.index.name or "", "color": value},
        color_continuous_scale=DIVERGING if limits[0] < 0 else SEQUENTIAL,
        zmin=limits[0],
        zmax=limits[1],
        text_auto=".2f",
        aspect="auto",
        title=title,
        template="refusal",
        width=WIDTH,
        height=220 + 40 * len(table),
    )
    figure.update_coloraxes(colorbar_title=bar_title(value))
    angle = -40 if max(len(str(name)) for name in figure.data[0].x) > 6 else 0
    figure.update_xaxes(type="category", tickangle=angle, showgrid=False)
    return figure.update_yaxes(type="category", showgrid=False)


def bar_title(value: str) -> dict[str, str]:
    """The title of a colour bar, above it: at its side, plotly writes the title over the ticks."""
    return {"text": value.replace(", ", ",<br>") + "<br> ", "side": "top"}


def heatmap_menu(
    panels: Mapping[str, pd.DataFrame], notes: Mapping[str, pd.DataFrame] | None = None, *, title: str
) -> go.Figure:
    """One map at a time, chosen in a menu; `panels` maps the quantity to a frame of the same rows and columns.

    Each has its own scale, centred on 0 if it has both signs. `notes`: for some of them, texts under the numbers.
    """
    figure, notes = go.Figure(), notes or {}
    for number, (name, frame) in enumerate(panels.items()):
        signed = frame.min().min() < 0 < frame.max().max()
        figure.add_heatmap(
            z=frame.to_numpy(dtype=np.float32).round(4),
            x=[str(column) for column in frame.columns],
            y=[str(row) for row in frame.index],
            colorscale=DIVERGING if signed else SEQUENTIAL,
            zmid=0 if signed else None,
            text=notes[name].to_numpy() if name in notes else None,
            texttemplate="%{z:.2f}<br>%{text}" if name in notes else "%{z:.2f}",
            visible=number == 0,
            colorbar={"title": bar_title(name)},
            hovertemplate=f"{frame.index.name} %{{y}}, {frame.columns.name} %{{x}}<br>{name} %{{z:.3f}}<extra></extra>",
        )
    figure.update_layout(template="refusal", title=title, width=WIDTH, height=640)
    figure.update_xaxes(type="category", showgrid=False).update_yaxes(type="category", showgrid=False)
    return add_menu(figure, {name: [other == name for other in panels] for name in panels})


def add_menu(figure: go.Figure, shown: Mapping[str, list[bool]]) -> go.Figure:
    """`figure` with a menu at its top right; `shown` maps every entry to the visibility of all traces."""
    buttons = [{"label": name, "method": "restyle", "args": [{"visible": visible}]} for name, visible in shown.items()]
    menu = {"buttons": buttons, "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom", "pad": {"t": 0}}
    figure.layout.updatemenus = [menu]
    return figure


def category_scatter(frame: pd.DataFrame, x: str, y: str, *, title: str) -> go.Figure:
    """Points of `frame` at its columns `x` and `y`, in the colours and markers of its column `category`.

    `category` has category ids, `"benign"` or the names of controls; controls of one kind share a legend entry.
    """
    named = frame.assign(name=frame["category"], category=frame["category"].map(label))
    figure = px.scatter(
        named, x=x, y=y, color="category", symbol="category", hover_name="name", title=title, **POINT_LOOK
    )
    return figure.update_traces(marker={"size": 10, "line": {"width": 0.5, "color": "#333"}})


def name_points(figure: go.Figure, x: pd.Series, y: pd.Series, names: pd.Series) -> go.Figure:
    """`figure` with a line from each of these points to its name, clear of all markers and of the other names.

    If no place is clear, a name stands where it is clearest. Preferred are places level with the point, towards the
    middle.
    """
    places = np.array([np.concatenate([np.asarray(trace[axis], float) for trace in figure.data]) for axis in "xy"])
    size = np.array([_PLOT_WIDTH * WIDTH, -_PLOT_HEIGHT * (figure.layout.height or HEIGHT)])  # pixels; y points down
    scale = size / np.maximum(np.ptp(places, axis=1), 1e-12)
    taken = places.T * scale
    for at in np.argsort(-np.asarray(y)):
        point = np.array([x.iloc[at], y.iloc[at]]) * scale
        inwards = -1 if x.iloc[at] > places[0].mean() else 1
        others = taken[np.abs(taken - point).max(1) > 0.5]
        options = [(s * inwards * reach, down) for down in _OFFSETS for reach in _REACHES for s in (1, -1)]
        drawn = [_line_and_text(point, np.array(to), len(str(names.iloc[at]))) for to in options]
        clear = [min(float(_distances(each, others).min(initial=np.inf)), _CLEAR) for each in drawn]
        best = int(np.argmax(clear))  # the first of the clearest
        across, down = options[best]
        taken = np.concatenate([taken, drawn[best]])
        look = {"arrowhead": 0, "arrowwidth": 0.6, "arrowcolor": "#666", "font_size": 12, "standoff": 6}
        anchor = {"xanchor": "left" if across > 0 else "right", "ax": across, "ay": down}
        figure.add_annotation(x=x.iloc[at], y=y.iloc[at], text=names.iloc[at], **look, **anchor)
    return figure


def _line_and_text(point: np.ndarray, to: np.ndarray, n_letters: int) -> np.ndarray:
    """Pixels along the line from a point to its name and along the middle of the name."""
    line = point + np.linspace(0.3, 1, 8)[:, None] * to
    text = np.linspace(0, _LETTER * n_letters * np.sign(to[0]), 16)[:, None] * np.array([1, 0])
    return np.concatenate([line, point + to + text])


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.linalg.norm(first[:, None] - second[None], axis=-1)


def write_across(figure: go.Figure, text: str) -> go.Figure:
    """`figure` with a sentence across its middle, such as why it is empty."""
    frame = {"bgcolor": "white", "bordercolor": "#888", "borderpad": 8, "font_size": 15}
    return figure.add_annotation(text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, **frame)


def category_lines(frame: pd.DataFrame, *, title: str, x: str, y: str, range_y: Limits | None = None) -> go.Figure:
    """A line over the index of `frame` for every column (a category id, `"benign"` or a control), with markers.

    The line style shows the cluster of a category.
    """
    wide = frame.rename(columns=label).rename_axis(index=x, columns="category").astype(np.float32).round(4)
    return px.line(
        wide.reset_index().melt(x, value_name=y),
        x=x,
        y=y,
        color="category",
        symbol="category",
        line_dash="category",
        range_y=range_y,
        title=title,
        markers=True,
        **LINE_LOOK,
    ).update_traces(line={"width": 1.8}, marker={"size": 8})
