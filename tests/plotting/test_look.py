import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from refusal_utils.paper.tables import published_cosines, published_table
from refusal_utils.plotting import look
from refusal_utils.plotting import tradeoff as tradeoff_figures
from refusal_utils.plotting.tradeoff import tradeoff_curves
from refusal_utils.prompts.categories import CATEGORIES, CATEGORY_IDS, category_by_id


def test_heatmap_keeps_the_order_and_diverges_from_zero_if_there_are_negative_values():
    figure = look.heatmap(published_cosines(), title="Table 1", value="cosine")
    trace, colours = figure.data[0], figure.layout.coloraxis
    assert list(trace.y) == list(trace.x) == [category.title for category in CATEGORIES]
    np.testing.assert_allclose(np.array(trace.z), published_cosines().to_numpy(), atol=1e-3)
    assert figure.layout.yaxis.autorange == "reversed"
    assert (colours.cmin, colours.cmax, colours.colorbar.title.text) == (-1, 1, "cosine")
    shares = look.heatmap(published_cosines().abs(), title="t", value="share", limits=(0, 0.5))
    assert (shares.layout.coloraxis.cmin, shares.layout.coloraxis.cmax) == (0, 0.5)
    assert shares.layout.coloraxis.colorscale != colours.colorscale


def test_category_scatter_draws_categories_in_their_looks_and_the_controls_of_a_kind_together():
    names = [*CATEGORY_IDS, "random 0", "random 1"]
    frame = pd.DataFrame({"category": names, "a": range(13), "b": range(13)})
    figure = look.category_scatter(frame, "a", "b", title="t")
    drawn = [(t.name, t.marker.color, t.marker.symbol) for t in figure.data]
    assert drawn[:11] == [(c.title, c.colour, c.marker) for c in CATEGORIES]
    assert drawn[11:] == [("random", *look.direction_look("random 5").values())]
    assert [list(trace.x) for trace in figure.data] == [*([value] for value in range(11)), [11, 12]]
    assert list(figure.data[-1].hovertext) == ["random 0", "random 1"]


def test_category_lines_have_markers_and_a_style_by_cluster_and_the_benign_prompts_their_own():
    frame = pd.DataFrame({"advice": [0.1, 0.2], "humanizing": [0.3, 0.4], "benign": [0.5, 0.6]}, index=[4, 8])
    figure = look.category_lines(frame, title="t", x="layer", y="cosine", range_y=(0.0, 1.0))
    assert [trace.name for trace in figure.data] == ["Unqualified advice", "Humanizing", "Benign"]
    assert [trace.line.color for trace in figure.data[:2]] == [
        category_by_id(name).colour for name in ("advice", "humanizing")
    ]
    assert len({trace.line.dash for trace in figure.data}) == 3
    assert {trace.mode for trace in figure.data} == {"lines+markers"}
    assert list(figure.data[1].x) == [4, 8]
    assert list(figure.data[1].y) == pytest.approx([0.3, 0.4])
    assert look.category_lines(frame, title="t", x="layer", y="norm").layout.yaxis.range is None


def test_tradeoff_curves_draw_every_point_one_band_and_the_other_intervals_in_the_hover_text():
    names = ["advice", "advice", "pooled", "random 0", "random 1", "covariance 0"]
    points = pd.DataFrame({"direction": names, "gaps": [0.0, *[1.0] * 5]})
    points = points.assign(RR=[0.5, 0.9, 0.9, 0.5, 0.6, 0.7], ORR=[0.5, 0.7, 0.7, 0.5, 0.6, 0.7])
    band = pd.DataFrame({"overall": [0.5, 0.8], "RR": [0.5, 0.9], "low": [0.45, 0.85], "high": [0.55, 0.95]})
    bands = pd.concat([band.assign(direction=name) for name in ("advice", "pooled")])
    figure = tradeoff_curves(bands, points, title="t")
    markers = [trace for trace in figure.data if trace.mode == "markers"]
    title = category_by_id("advice").title
    assert [(trace.name, list(trace.x), list(trace.y)) for trace in markers[:3]] == [
        (title, [0.5, 0.7], [0.5, 0.9]),
        ("pooled", [0.7], [0.9]),
        ("random", [0.5], [0.5]),
    ]
    assert [trace.showlegend for trace in markers] == [True, True, True, False, True]  # one entry for a kind
    (area,) = [trace for trace in figure.data if trace.fill == "toself"]
    assert area.name == "pooled"
    assert next(zip(area.x, area.y, strict=True)) == pytest.approx((0.55, 0.45))  # ORR = 2 overall - RR
    lines = [trace for trace in figure.data if trace.mode == "lines" and trace.fill is None]
    assert [trace.name for trace in lines] == [title, "pooled"]
    for line in lines:
        assert list(line.x) == pytest.approx([0.5, 0.7])
        np.testing.assert_allclose(np.array(line.customdata), band[["overall", "low", "high"]].to_numpy())
    everything = tradeoff_curves(bands, points, title="t", banded=("advice", "pooled"))
    assert sum(trace.fill == "toself" for trace in everything.data) == 2


def test_kinds_of_controls_share_neither_colour_nor_marker_and_no_category_has_their_colour():
    looks = [look.direction_look(name) for name in ("pooled", "random 0", "covariance 4", "something 1")]
    assert look.direction_look("random 3") == looks[1]
    for key in ("color", "symbol"):
        assert len({look[key] for look in looks}) == 4
    assert not {look["color"] for look in looks} & {category.colour for category in CATEGORIES}
    assert not {look["symbol"] for look in looks} & {category.marker for category in CATEGORIES}
    humanizing = category_by_id("humanizing")
    assert look.direction_look("humanizing") == {"color": humanizing.colour, "symbol": humanizing.marker}


def test_heatmap_menu_shows_one_panel_at_a_time_and_centres_only_what_has_both_signs():
    index, columns = pd.Index([1, 2], name="layer"), pd.Index([-2, -1], name="pos")
    signed = pd.DataFrame([[-1.0, 2.0], [0.5, 0.1]], index, columns)
    figure = look.heatmap_menu({"signed": signed, "share": signed.abs()}, title="t")
    assert [trace.visible for trace in figure.data] == [True, False]
    assert [trace.zmid for trace in figure.data] == [0, None]
    buttons = figure.layout.updatemenus[0].buttons
    assert [button.args[0]["visible"] for button in buttons] == [[True, False], [False, True]]
    assert figure.data[0].z.tolist() == [[-1.0, 2.0], [0.5, pytest.approx(0.1)]]
    assert "layer %{y}, pos %{x}" in figure.data[1].hovertemplate


def test_published_rates_are_hidden_points_with_their_split_and_strength():
    figure, table = go.Figure(), published_table(12)
    tradeoff_figures.add_published_rates(figure, table, "Gemma")
    (trace,) = figure.data
    assert (trace.visible, trace.mode, trace.name) == ("legendonly", "markers", "Gemma")
    drawn = dict(zip(trace.text, zip(trace.x, trace.y, strict=True), strict=True))
    assert len(drawn) == len(table)
    for row in table.itertuples():
        assert drawn[f"{row.split}, alpha {row.alpha}"] == (row.over_refusal_rate, row.refusal_rate)


def test_interval_bars_reach_from_low_to_high():
    frame = pd.DataFrame({"accuracy": [0.5, 0.2], "low": [0.4, 0.1], "high": [0.7, 0.25]}, index=["text", "outcome"])
    figure = tradeoff_figures.interval_bars(frame, title="t", y="share", chance=1 / 11)
    for trace, (name, row) in zip(figure.data, frame.iterrows(), strict=True):
        assert (list(trace.x), list(trace.y)) == ([name], [row["accuracy"]])
        ends = (trace.y[0] - trace.error_y.arrayminus[0], trace.y[0] + trace.error_y.array[0])
        assert ends == pytest.approx((row["low"], row["high"]))
    (line,) = figure.layout.shapes
    assert line.y0 == line.y1 == pytest.approx(1 / 11)
    assert figure.layout.annotations[0].text == "chance 1/11"
    both = tradeoff_figures.interval_bars(frame, title="t", y="share", chance=1 / 11, marks={"two of eleven": 2 / 11})
    drawn = {each.text: line.y0 for each, line in zip(both.layout.annotations, both.layout.shapes, strict=True)}
    assert drawn == pytest.approx({"chance 1/11": 1 / 11, "two of eleven": 2 / 11})
