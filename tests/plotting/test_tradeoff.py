import numpy as np
import pandas as pd
import pytest

from refusal_utils.paper.tables import published_table
from refusal_utils.plotting.tradeoff import interval_bars, tradeoff_figure
from refusal_utils.prompts.categories import category_by_id

ADVICE = category_by_id("advice")


@pytest.fixture
def figure():
    names = ["advice", "advice", "pooled", "random 0", "random 1", "covariance 0"]
    points = pd.DataFrame({"direction": names, "gaps": [0.0, *[1.0] * 5]})
    points = points.assign(RR=[0.5, 0.9, 0.9, 0.5, 0.6, 0.7], ORR=[0.5, 0.7, 0.7, 0.5, 0.6, 0.7])
    return tradeoff_figure(BANDS, points, title="t", published={"Gemma": published_table(12)})


BAND = pd.DataFrame({"overall": [0.5, 0.8], "RR": [0.5, 0.9], "low": [0.45, 0.85], "high": [0.55, 0.95]})
BANDS = pd.concat([BAND.assign(direction=name) for name in ("advice", "pooled")])


def drawn(figure, **kind):
    return [each for each in figure.data if each.showlegend is not None and all(each[k] == v for k, v in kind.items())]


def test_every_direction_and_strength_is_a_point(figure):
    points = drawn(figure, mode="markers")
    assert [(trace.name, list(trace.x), list(trace.y)) for trace in points] == [
        (ADVICE.title, [0.5, 0.7], [0.5, 0.9]),
        ("pooled", [0.7], [0.9]),
        ("random", [0.5, 0.6], [0.5, 0.6]),
        ("covariance", [0.7], [0.7]),
    ]
    assert list(points[2].hovertext) == ["random 0", "random 1"]


def test_curves_have_their_intervals_in_the_hover_text_and_one_has_a_band(figure):
    (area,) = drawn(figure, fill="toself")
    assert area.name == "pooled"
    assert next(zip(area.x, area.y, strict=True)) == pytest.approx((0.55, 0.45))  # ORR = 2 overall - RR
    lines = drawn(figure, mode="lines", fill=None)
    assert [trace.name for trace in lines] == [ADVICE.title, "pooled"]
    for line in lines:
        assert list(line.x) == pytest.approx([0.5, 0.7])
        np.testing.assert_allclose(np.array(line.customdata), BAND[["overall", "low", "high"]].to_numpy())
    assert area.fillcolor == lines[1].line.color


def test_the_legend_shows_every_kind_once_with_line_and_marker(figure):
    entries = [trace for trace in figure.data if trace.showlegend is not False]
    assert [(each.name, each.mode) for each in entries] == [
        (ADVICE.title, "lines+markers"),
        ("pooled", "lines+markers"),
        ("random", "markers"),
        ("covariance", "markers"),
        ("Gemma", "markers"),
    ]
    assert (entries[0].marker.color, entries[0].marker.symbol) == (ADVICE.colour, ADVICE.marker)
    for each in entries[:4]:  # a click hides everything of a kind
        assert {trace.legendgroup for trace in figure.data if trace.name == each.name} == {each.legendgroup}


def test_published_rates_are_hidden_points_with_their_split_and_strength(figure):
    trace, table = figure.data[-1], published_table(12)
    assert (trace.visible, trace.mode, trace.name) == ("legendonly", "markers", "Gemma")
    points = dict(zip(trace.text, zip(trace.x, trace.y, strict=True), strict=True))
    assert len(points) == len(table)
    for row in table.itertuples():
        assert points[f"{row.split}, alpha {row.alpha}"] == (row.over_refusal_rate, row.refusal_rate)


def test_interval_bars_reach_from_low_to_high():
    frame = pd.DataFrame({"accuracy": [0.5, 0.2], "low": [0.4, 0.1], "high": [0.7, 0.25]}, index=["text", "outcome"])
    figure = interval_bars(frame, title="t", y="share", marks={"chance": 1 / 11, "two of eleven": 2 / 11})
    (bars,) = figure.data
    assert (list(bars.x), list(bars.y)) == (["text", "outcome"], [0.5, 0.2])
    assert bars.y - bars.error_y.arrayminus == pytest.approx(frame["low"].to_numpy())
    assert bars.y + bars.error_y.array == pytest.approx(frame["high"].to_numpy())
    lines = {each.text: line.y0 for each, line in zip(figure.layout.annotations, figure.layout.shapes, strict=True)}
    assert lines == pytest.approx({"chance": 1 / 11, "two of eleven": 2 / 11})
