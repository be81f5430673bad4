import numpy as np
import pandas as pd
import pytest

from refusal_utils.paper.tables import published_cosines
from refusal_utils.plotting import look
from refusal_utils.prompts.categories import CATEGORIES, CATEGORY_IDS, category_by_id


def test_heatmap_keeps_the_order_and_diverges_from_zero_if_there_are_negative_values():
    figure = look.heatmap(published_cosines(), title="Table 1", value="cosine")
    trace, colours = figure.data[0], figure.layout.coloraxis
    assert list(trace.y) == list(trace.x) == [category.title for category in CATEGORIES]
    np.testing.assert_allclose(np.array(trace.z), published_cosines().to_numpy(), atol=1e-3)
    assert figure.layout.yaxis.autorange == "reversed"
    assert (colours.cmin, colours.cmax, colours.colorbar.title.text) == (-1, 1, "cosine<br> ")
    shares = look.heatmap(published_cosines().abs(), title="t", value="share", limits=(0, 0.5))
    assert (shares.layout.coloraxis.cmin, shares.layout.coloraxis.cmax) == (0, 0.5)
    assert shares.layout.coloraxis.colorscale != colours.colorscale


def test_category_scatter_draws_categories_in_their_looks_and_the_controls_of_a_kind_together():
    names = [*CATEGORY_IDS, "random 0", "random 1"]
    frame = pd.DataFrame({"category": names, "a": range(13), "b": range(13)})
    figure = look.category_scatter(frame, "a", "b", title="t")
    drawn = [(t.name, t.marker.color, t.marker.symbol) for t in figure.data]
    assert drawn[:11] == [(c.title, c.colour, c.marker) for c in CATEGORIES]
    assert [name for name, *_ in drawn[11:]] == ["random"]
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


def test_kinds_of_controls_share_neither_colour_nor_marker_and_no_category_has_theirs():
    colours, markers = look.POINT_LOOK["color_discrete_map"], look.POINT_LOOK["symbol_map"]
    for looks in (colours, markers):
        controls = {looks[kind] for kind in ("pooled", "random", "covariance")}
        assert len(controls) == 3
        assert not controls & {looks[category.title] for category in CATEGORIES}


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
    noted = look.heatmap_menu({"signed": signed, "share": signed}, {"share": signed.map("n = {}".format)}, title="t")
    assert [trace.texttemplate for trace in noted.data] == ["%{z:.2f}", "%{z:.2f}<br>%{text}"]
    assert noted.data[1].text[1][0] == "n = 0.5"


def test_names_of_points_face_the_middle_where_no_marker_is_in_the_way():
    frame = pd.DataFrame({"category": ["advice"] * 4, "a": [0.0, 1.0, 1.1, 10.0], "b": [0.0, 2.0, 2.0, 2.01]})
    named = frame[1:]
    figure = look.category_scatter(frame, "a", "b", title="t")
    notes = look.name_points(figure, named["a"], named["b"], "head " + named["a"].astype(str)).layout.annotations
    assert [note.text for note in notes] == ["head 10.0", "head 1.0", "head 1.1"]  # from the top
    assert [note.xanchor for note in notes] == ["right", "right", "left"]  # 1.1 is to the right of 1.0


def test_names_and_their_lines_stay_clear_of_other_markers():
    """A marker lies where the name would stand, level with the point and towards the middle."""
    points = pd.DataFrame({"a": [0.0, 0.08, 1.0], "b": [0.5, 0.5, 1.0], "category": "advice"})
    figure = look.category_scatter(points, "a", "b", title="t")
    (note,) = look.name_points(figure, points["a"][:1], points["b"][:1], pd.Series(["head 0.1"])).layout.annotations
    text = note.ax + np.linspace(0, 56, 20)  # pixels from the point
    away = np.hypot(text - 0.08 * 0.68 * look.WIDTH, note.ay)
    assert away.min() > 12
    (alone,) = look.name_points(
        look.category_scatter(points[::2], "a", "b", title="t"), points["a"][:1], points["b"][:1], pd.Series(["head"])
    ).layout.annotations
    assert alone.ay == 0  # before control
