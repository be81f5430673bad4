"""Figures of several models side by side: claims, trade-off curves on one axis, and methods."""

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go

from .look import BLUE, ORANGE, VERMILION, WIDTH, heatmap
from .tradeoff import AXES

VERDICTS = {"agrees": "#009E73", "differs": VERMILION, "undecided": "#777777", "bar": "#111111"}
# The first six are Okabe & Ito's (2008), the others from plotly's Dark24, chosen so that any two differ clearly.
MODEL_COLOURS = [BLUE, ORANGE, VERMILION, "#009E73", "#CC79A7", "#56B4E9", "#620042", "#222A2A", "#B68100", "#511CFB"]
_MARKERS = ["circle", "diamond", "square", "x", "triangle-up", "star", "cross", "triangle-down", "pentagon", "hexagon"]


def claim_panels(measures: pd.DataFrame, *, title: str, n_columns: int = 4) -> go.Figure:
    """A panel per measure, a row per model: the number with its range, coloured by its verdict, and its bar.

    Columns of `measures`: panel, model, number, low, high, bar, verdict.
    """
    ends = {"above": measures["high"] - measures["number"], "below": measures["number"] - measures["low"]}
    bars = measures.assign(number=measures["bar"], verdict="bar", above=0.0, below=0.0)
    n_models, n_panels = measures["model"].nunique(), measures["panel"].nunique()
    n_rows = -(-n_panels // n_columns)
    height = 190 + n_rows * (70 + 30 * n_models)
    figure = px.scatter(
        pd.concat([measures.assign(**ends), bars]).round(4),
        x="number",
        y="model",
        error_x="above",
        error_x_minus="below",
        color="verdict",
        symbol="verdict",
        color_discrete_map=VERDICTS,
        symbol_map={name: "line-ns" if name == "bar" else "circle" for name in VERDICTS},
        category_orders={"verdict": list(VERDICTS), "model": list(dict.fromkeys(measures["model"]))},
        facet_col="panel",
        facet_col_wrap=n_columns,
        facet_row_spacing=90 / (height - 190),
        facet_col_spacing=0.025,
        labels={"number": "", "model": "", "verdict": ""},
        title=title,
        template="refusal",
        width=WIDTH,
        height=height,
    )
    figure.for_each_annotation(lambda note: note.update(text=note.text.partition("=")[2], font_size=12))
    figure.update_traces(marker_size=9, error_x={"thickness": 1.6, "width": 0})
    figure.update_traces(marker={"size": 14, "line": {"width": 2, "color": VERDICTS["bar"]}}, selector={"name": "bar"})
    figure.update_xaxes(matches=None, showticklabels=True, zeroline=True, zerolinecolor="#bbb", nticks=5)
    figure.update_layout(legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yref": "container"})
    figure.update_layout(legend={"yanchor": "top"}, legend_font_size=13, margin={"t": 125, "b": 40})
    return figure


def likeness_map(table: pd.DataFrame, *, title: str) -> go.Figure:
    """The correlations of the models' maps as a heatmap, from a square table."""
    return heatmap(table, title=title, value="correlation over the pairs of directions").update_layout(
        height=260 + 55 * len(table)
    )


def curves_on_one_axis(curves: pd.DataFrame, means: pd.DataFrame, controls: pd.DataFrame, *, title: str) -> go.Figure:
    """Refusal against over-refusal: a thin line per direction and a thick one per model, in the model's colour.

    All frames have the columns model, ORR and RR; `curves` and `controls` also have direction. The points of `controls`
    are hidden until a click on their legend entry.
    """
    models = list(dict.fromkeys(curves["model"]))
    how = {"x": "ORR", "y": "RR", "color": "model", "labels": {**AXES, "model": ""}, "template": "refusal"}
    colours = {"category_orders": {"model": models}, "color_discrete_sequence": MODEL_COLOURS}
    figure = px.line(
        curves.round(4),
        line_group="direction",
        hover_name="direction",
        title=title,
        width=WIDTH,
        height=700,
        **how,
        **colours,
    )
    figure.update_traces(line={"width": 1}, opacity=0.4, showlegend=False)
    thick = px.line(means.round(4), markers=True, symbol="model", symbol_sequence=_MARKERS, **how, **colours)
    figure.add_traces(thick.update_traces(line={"width": 2.5}, marker={"size": 7}).data)
    figure.add_traces(_control_points(controls, dict(zip(models, MODEL_COLOURS * len(models), strict=False))))
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": "#999", "dash": "dot", "width": 1})
    figure.data[-1].update(name="RR = ORR", hoverinfo="skip")
    figure.update_xaxes(range=[-0.03, 1.03]).update_yaxes(range=[-0.03, 1.03])
    return figure.update_layout(legend={"title": "mean of the directions"})


def _control_points(controls: pd.DataFrame, colours: Mapping[str, str]) -> list[go.Scatter]:
    name = "control directions"
    return [
        go.Scatter(
            x=own["ORR"], y=own["RR"], text=own["direction"], mode="markers", visible="legendonly", name=name,
            marker={"color": colours[model], "symbol": "circle-open", "size": 6}, legendgroup=name, showlegend=not at,
        )
        for at, (model, own) in enumerate(controls.groupby("model", sort=False))
    ]  # fmt: skip


def method_dots(values: pd.DataFrame, *, title: str, panels: Sequence[str]) -> go.Figure:
    """A row per method, a point per model with its interval; a panel for each of `panels`.

    Columns of `values`: panel, method, model, value, low, high.
    """
    ends = {"above": values["high"] - values["value"], "below": values["value"] - values["low"]}
    methods = list(dict.fromkeys(values["method"]))
    models = list(dict.fromkeys(values["model"]))
    figure = px.scatter(
        values.assign(**ends).round(4),
        x="value",
        y="method",
        error_x="above",
        error_x_minus="below",
        color="model",
        symbol="model",
        color_discrete_sequence=MODEL_COLOURS,
        symbol_sequence=_MARKERS,
        category_orders={"panel": list(panels), "method": methods, "model": models},
        facet_col="panel",
        facet_col_spacing=0.03,
        labels={"value": "", "method": "", "model": ""},
        title=title,
        template="refusal",
        width=WIDTH,
        height=200 + 42 * len(methods),
    )
    figure.for_each_annotation(lambda note: note.update(text=note.text.partition("=")[2], font_size=13))
    figure.update_layout(scattermode="group", scattergap=0.55, margin={"t": 100})
    figure.update_traces(marker_size=8, error_x={"thickness": 1.4, "width": 0}, orientation="h")
    return figure.update_xaxes(matches=None, zeroline=True, zerolinecolor="#999")
