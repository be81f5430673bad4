"""Figures in a browser, opened from disk: marks are drawn, menus change them, and hostile texts stay text."""

import numpy as np
import pandas as pd
import plotly.express as px
import pytest

from refusal_utils.paper.tables import published_cosines
from refusal_utils.plotting.look import heatmap_menu
from refusal_utils.plotting.pairs import heatmap_slider
from refusal_utils.plotting.points import embedding_scatter
from refusal_utils.plotting.saving import save_figure
from refusal_utils.plotting.texts import visible

from ..browser import open_browser, reads_forward
from ..figure_views import FigurePage
from ..gallery.planted import HOSTILE, LONG

POINTS = "document.querySelectorAll('.scatterlayer .point').length"
HOVER = """(async () => {
  const plot = document.querySelector('.js-plotly-plot');
  Plotly.Fx.hover(plot, [{curveNumber: 0, pointNumber: 0}]);
  await new Promise(done => setTimeout(done, 300));
  return document.querySelector('.hoverlayer').textContent;
})()"""


@pytest.fixture(scope="module")
def page():
    with open_browser() as opened:
        yield opened


def test_points_are_drawn_chosen_and_hovered_and_their_texts_stay_text(page, tmp_path):
    frame = pd.DataFrame({"category": ["benign"] * 4 + ["advice"] * 4 + ["humanizing"] * 4})
    frame = frame.assign(id=[f"{HOSTILE}{number}" for number in range(12)], outcome="refused", a=range(12), b=range(12))
    figure = embedding_scatter(frame, "a", "b", where="here", title=f"{HOSTILE}, points")
    written = save_figure(figure, "points", "chatty", root=tmp_path)
    page.open(written[0])
    assert page.run(POINTS) == 12
    assert page.run(HOVER).startswith(visible(HOSTILE))
    assert page.run("document.querySelector('.gtitle').textContent") == f"{visible(HOSTILE)}, points"
    assert reads_forward(page, ", points")
    assert page.run("document.querySelectorAll('.js-plotly-plot img, .js-plotly-plot script').length") == 0
    FigurePage(page).choose(0, 3)  # Humanizing, after all categories, Benign and Advice
    assert page.run(POINTS) == 8  # with the benign ones
    assert page.run("typeof hacked") == "undefined"
    assert not page.complaints
    assert not page.requests


@pytest.mark.parametrize("kind", ["three dimensions", "graphics card"])
def test_hostile_names_stay_text_where_the_graphics_card_draws(page, tmp_path, kind):
    frame = pd.DataFrame({"a": [0.0, 1.0, 2.0], "b": [0.0, 2.0, 1.0], "c": [1.0, 0.0, 2.0], "name": [HOSTILE] * 3})
    if kind == "three dimensions":
        figure = px.scatter_3d(frame, "a", "b", "c", hover_name="name", color="name")
    else:
        figure = px.scatter(frame, "a", "b", hover_name="name", color="name", render_mode="webgl")
    written = save_figure(figure, "points", "chatty", root=tmp_path)
    view = FigurePage(page.open(written[0]))
    assert view.hover_lines()[0].startswith(visible(HOSTILE)[:20])
    assert page.run("document.querySelectorAll('.js-plotly-plot img, .js-plotly-plot script').length") == 0
    assert page.run("typeof hacked") == "undefined"
    assert view.problems() == []


def test_a_map_is_drawn_changed_by_its_menu_and_takes_long_hostile_names(page, tmp_path):
    names = [f"{HOSTILE}{number}" for number in range(3)]
    maps = {
        kind: pd.DataFrame(np.eye(3) * scale, index=[*names[:2], LONG], columns=names)
        for kind, scale in {"first": 1.0, "second": 2.0}.items()
    }
    written = save_figure(heatmap_menu(maps, title="Maps"), "maps", "chatty", root=tmp_path)
    page.open(written[0])
    shown = "document.querySelector('.js-plotly-plot').data.map(trace => trace.visible !== false)"
    assert page.run("document.querySelectorAll('.heatmaplayer image').length") == 1
    before = page.run(shown)
    FigurePage(page).choose(0, 1)
    assert page.run(shown) == before[::-1] != before
    assert page.run("typeof hacked") == "undefined"
    assert not page.complaints


def test_a_slider_is_moved_without_complaints(page, tmp_path):
    maps = {layer: published_cosines() / layer for layer in (1, 2, 4)}
    written = save_figure(heatmap_slider(maps, 2, title="Layers", value="cosine"), "layers", "chatty", root=tmp_path)
    assert FigurePage(page.open(written[0])).problems() == []


def test_what_is_wrong_with_a_figure_is_found(page, tmp_path):
    """Before control: texts on each other, a menu that does nothing, nothing drawn, and a page that does not exist."""
    figure = heatmap_menu({name: published_cosines() for name in ("one", "other")}, title="Maps")
    for text in ("over", "under"):
        figure.add_annotation(x=3, y=3, text=text, showarrow=False)
    figure.layout.updatemenus[0].buttons[1].args = figure.layout.updatemenus[0].buttons[0].args
    written = save_figure(figure, "maps", "chatty", root=tmp_path)
    found = FigurePage(page.open(written[0])).problems()
    assert "'over' lies on 'under'" in found
    assert "menu 0 shows 1 pictures for 2 entries" in found
    figure.data = []
    figure.add_layout_image(source="missing.png", x=0, y=1)
    found = FigurePage(page.open(save_figure(figure, "maps", "chatty", root=tmp_path)[0])).problems()
    assert "nothing is drawn" in found
    assert any("missing.png" in problem for problem in found)
