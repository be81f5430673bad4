"""One look for all figures, the colours and markers of categories and controls, and one way to save."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import plotly
import plotly.graph_objects as go
import plotly.io as pio

from ..prompts.categories import BENIGN, CATEGORIES, category_by_id

_CHECKOUT = Path(__file__).parents[2]
FIGURES = (_CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() else Path()) / "figures"
DIVERGING = "RdBu_r"  # always centred on 0
SEQUENTIAL = "Viridis"
TITLES = {category.id: category.title for category in CATEGORIES}
# Colour and marker of directions that are no category's: no colour of these, no marker of two of them.
CONTROLS = {"pooled": ("#222", "square"), "random": ("#888", "square-open"), "covariance": ("#6a1b9a", "diamond-open")}
pio.templates["refusal"] = go.layout.Template(
    layout=go.Layout(
        font={"family": "Helvetica, Arial, sans-serif", "size": 13, "color": "#222"},
        title={"x": 0.02, "xanchor": "left", "font": {"size": 17}},
        paper_bgcolor="white",
        plot_bgcolor="white",
        margin={"l": 70, "r": 30, "t": 80, "b": 60},
        xaxis={"gridcolor": "#e5e5e5", "zeroline": False, "automargin": True},
        yaxis={"gridcolor": "#e5e5e5", "zeroline": False, "automargin": True},
        legend={"bgcolor": "rgba(255,255,255,0.8)"},
    )
)
BLUE, VERMILION, ORANGE = "#0072B2", "#D55E00", "#E69F00"

pio.templates["refusal"] = go.layout.Template(
    layout=go.Layout(
        font={"family": "Helvetica, Arial, sans-serif", "size": 13, "color": "#222"},
        title={"x": 0.02, "xanchor": "left", "font": {"size": 17}},
        paper_bgcolor="white",
        plot_bgcolor="white",
        margin={"l": 70, "r": 30, "t": 80, "b": 60},
        xaxis={"gridcolor": "#e5e5e5", "zeroline": False, "automargin": True},
        yaxis={"gridcolor": "#e5e5e5", "zeroline": False, "automargin": True},
        legend={"bgcolor": "rgba(255,255,255,0.8)"},
    )
)


def titles(categories: list[str]) -> list[str]:
    """The titles of category ids."""
    return [category_by_id(category).title for category in categories]


def heatmap_trace(matrix: pd.DataFrame, *, value: str, decimals: int = 2, showscale: bool = True) -> go.Heatmap:
    """The trace of `heatmap`, for figures with a slider or several panels."""
    return go.Heatmap(
        z=matrix.to_numpy(dtype=np.float32).round(4),
        x=titles(list(matrix.columns)),
        y=titles(list(matrix.index)),
        zmin=-1,
        zmax=1,
        zmid=0,
        colorscale=DIVERGING,
        texttemplate=f"%{{z:.{decimals}f}}",
        textfont={"size": 10},
        showscale=showscale,
        colorbar={"title": {"text": value, "side": "right"}},
        hovertemplate="%{y}<br>%{x}<br>" + value + " %{z:.3f}<extra></extra>",
    )


def square_layout(figure: go.Figure, title: str, n_panels: int = 1) -> go.Figure:
    """`figure` with the layout of the category maps: first row on top, slanted labels, room for the titles."""
    figure.update_layout(template="refusal", title=title, width=240 + 640 * n_panels, height=760)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(tickangle=-40, showgrid=False)
    return figure


def heatmap_menu(panels: Mapping[str, pd.DataFrame], *, title: str) -> go.Figure:
    """One map of numbers at a time, chosen in a menu: `panels` are frames of the same rows and columns, by quantity.

    Each has its own colour scale: zero-centred where it takes both signs, else from its lowest value to its highest.
    """
    figure = go.Figure()
    for number, (name, frame) in enumerate(panels.items()):
        values = frame.to_numpy(dtype=np.float32).round(4)
        both = bool((values < 0).any() and (values > 0).any())
        figure.add_heatmap(
            z=values,
            x=[str(column) for column in frame.columns],
            y=[str(row) for row in frame.index],
            colorscale=DIVERGING if both else SEQUENTIAL,
            zmid=0 if both else None,
            texttemplate="%{z:.2f}",
            visible=number == 0,
            colorbar={"title": {"text": name, "side": "right"}},
            hovertemplate=f"{frame.index.name} %{{y}}, {frame.columns.name} %{{x}}<br>{name} %{{z:.3f}}<extra></extra>",
        )
    buttons = [
        {"label": name, "method": "update", "args": [{"visible": [other == name for other in panels]}]}
        for name in panels
    ]
    heading = {"text": title, "y": 0.97, "yanchor": "top"}
    figure.update_layout(template="refusal", title=heading, width=900, height=640, margin={"t": 130})
    figure.update_layout(updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.13, "pad": {"t": 0}}])
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_yaxes(type="category", showgrid=False)
    return figure


def category_scatter(frame: pd.DataFrame, x: str, y: str, *, title: str) -> go.Figure:
    """Points of `frame` (columns category, x, y, and `error_x`, `error_y` where known), one trace per category."""
    figure = go.Figure()
    for category in CATEGORIES:
        rows = frame[frame["category"] == category.id]
        if len(rows):
            figure.add_scatter(
                x=rows[x].to_numpy(),
                y=rows[y].to_numpy(),
                mode="markers",
                name=category.title,
                marker={
                    "color": category.colour,
                    "symbol": category.marker,
                    "size": 9,
                    "line": {"width": 0.5, "color": "#333"},
                },
                hovertemplate=f"{category.title}<br>{x} %{{x:.3f}}<br>{y} %{{y:.3f}}<extra></extra>",
            )
    figure.update_layout(template="refusal", title=title, xaxis_title=x, yaxis_title=y, width=860, height=560)
    return figure


def category_lines(
    frame: pd.DataFrame, *, title: str, x: str, y: str, range_y: tuple[float, float] | None = None
) -> go.Figure:
    """One line per category (columns of `frame`) over its index, in the categories' colours and markers, benign dashed."""
    figure = go.Figure()
    for name in frame.columns:
        benign = name == BENIGN
        label = "Benign" if benign else category_by_id(name).title
        look = {"color": "#222", "dash": "dash"} if benign else {"color": category_by_id(name).colour}
        figure.add_scatter(
            x=frame.index.to_numpy(),
            y=frame[name].to_numpy(dtype=np.float32).round(4),
            mode="lines+markers",
            name=label,
            line={"width": 1.5, **look},
            marker={"symbol": "circle" if benign else category_by_id(name).marker, "size": 8},
            hovertemplate=f"{label}<br>{x} %{{x}}<br>{y} %{{y:.3f}}<extra></extra>",
        )
    figure.update_layout(template="refusal", title=title, width=900, height=540)
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y, range=range_y)
    return figure


def direction_kind(direction: str) -> str:
    """A category's own id, or what a numbered control is one of.

    >>> direction_kind("hate_speech"), direction_kind("random 3")
    ('hate_speech', 'random')
    """
    return direction.rstrip("0123456789 ")


def direction_look(direction: str) -> dict[str, str]:
    """Colour and symbol of a direction's markers: its category's, or those of its kind of control."""
    kind = direction_kind(direction)
    if kind in TITLES:
        return {"color": category_by_id(kind).colour, "symbol": category_by_id(kind).marker}
    return dict(zip(("color", "symbol"), CONTROLS.get(kind, ("#8c510a", "cross-open")), strict=True))


def save_figure(
    figure: go.Figure, name: str, model: str, numbers: pd.DataFrame | None = None, root: str | Path = FIGURES
) -> list[Path]:
    """Write `figures/<model>/<name>.html` (works offline), `.csv` of the numbers, and `.png` where Chrome is found.

    The HTML shares one `plotly.min.js` beside it. Returns the paths written.
    """
    folder = model_folder(model, root)
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{name}.html"]
    figure.write_html(written[0], include_plotlyjs="directory")
    if numbers is not None:
        written.append(folder / f"{name}.csv")
        numbers.to_csv(written[-1])
    if chrome():
        written.append(folder / f"{name}.png")
        figure.write_image(written[-1])
    return written


def model_folder(model: str, root: str | Path | None = None) -> Path:
    """Where the figures of `model` are: `root` (default `figures/`) and the last part of its name.

    >>> model_folder("google/gemma-2-9b-it", "figures").as_posix()
    'figures/gemma-2-9b-it'
    """
    return Path(root or FIGURES) / model.rstrip("/").split("/")[-1]


def chrome() -> str | None:
    """The path of a Chrome that can draw PNGs, where it, kaleido and a plotly that knows kaleido 1 are there, else None."""
    try:
        import kaleido  # noqa: F401
    except ImportError:
        return None
    if tuple(map(int, plotly.__version__.split(".")[:2])) < (6, 1):
        return None
    return next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
