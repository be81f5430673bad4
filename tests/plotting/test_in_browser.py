"""Figures in a browser, opened from disk: marks are drawn, menus change them, and hostile texts stay text."""

import json

import numpy as np
import pandas as pd
import pytest

from refusal_utils.plotting.look import heatmap_menu
from refusal_utils.plotting.points import embedding_scatter
from refusal_utils.plotting.saving import save_figure

from ..browser import open_browser
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


def choose(page, name: str) -> None:
    """Choose an entry of the figure's menu with the mouse's events."""
    labels = "[...document.querySelectorAll('.updatemenu-item-text')].find(each => each.textContent === %s)"
    page.run("document.querySelector('.updatemenu-header').dispatchEvent(new Event('click'))")
    page.run(labels % json.dumps(name) + ".closest('.updatemenu-dropdown-button').dispatchEvent(new Event('click'))")
    page.run("new Promise(done => setTimeout(done, 500))")


def test_points_are_drawn_chosen_and_hovered_and_their_texts_stay_text(page, tmp_path):
    frame = pd.DataFrame({"category": ["benign"] * 4 + ["advice"] * 4 + ["humanizing"] * 4})
    frame = frame.assign(id=[f"{HOSTILE}{number}" for number in range(12)], outcome="refused", a=range(12), b=range(12))
    figure = embedding_scatter(frame, "a", "b", where="here", title=f"{HOSTILE}, points")
    written = save_figure(figure, "points", "chatty", root=tmp_path)
    page.open(written[0])
    assert page.run(POINTS) == 12
    assert page.run(HOVER).startswith(HOSTILE)
    assert page.run("document.querySelector('.gtitle').textContent").startswith(HOSTILE)
    assert page.run("document.querySelectorAll('.js-plotly-plot img, .js-plotly-plot script').length") == 0
    choose(page, "Humanizing")
    assert page.run(POINTS) == 8  # with the benign ones
    assert page.run("typeof hacked") == "undefined"
    assert not page.complaints
    assert not page.requests


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
    choose(page, "second")
    assert page.run(shown) == before[::-1] != before
    assert page.run("typeof hacked") == "undefined"
    assert not page.complaints
