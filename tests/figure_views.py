"""Saved figures in a browser: what is drawn, whether texts lie on each other, and what menus and sliders change."""

import hashlib
import json
import re
from collections.abc import Callable
from functools import partial

import numpy as np

from .browser import Page

# What a trace draws: points, lines, bars, boxes, cells of a map, or a whole scene in three dimensions.
MARKS = ", ".join(
    (
        ".scatterlayer .point",
        ".scatterlayer .js-line",
        ".scatterlayer .js-fill",
        ".barlayer .point",
        ".boxlayer .box",
        ".violinlayer .violin",
        ".heatmaplayer image",
        ".gl-container canvas",
    )
)
# Every text that can be seen: its words and the corners of its box, turned as it is turned, in pixels of the window.
TEXTS = """[...document.querySelectorAll('.js-plotly-plot svg text')].filter(node => node.textContent.trim() &&
    node.checkVisibility({opacityProperty: true, visibilityProperty: true}) && 
    !node.closest('.hoverlayer, .updatemenu-dropdown-button-group')).map(node => {
  const box = node.getBBox(), matrix = node.getScreenCTM();
  const at = (x, y) => { const spot = new DOMPoint(x, y).matrixTransform(matrix); return [spot.x, spot.y]; };
  const cut = Math.min(0.2 * parseFloat(getComputedStyle(node).fontSize), box.height / 4);
  const [left, right, top, bottom] = [box.x + 1, box.x + box.width - 1, box.y + cut, box.y + box.height - cut];
  return [node.textContent, [at(left, top), at(right, top), at(right, bottom), at(left, bottom)]];
})"""
DRAWN = """[...document.querySelectorAll('.cartesianlayer, .infolayer :is(.annotation, .xtitle, .ytitle)')]
    .map(node => node.outerHTML).join('')"""
PLOT = "document.querySelector('.js-plotly-plot')"
# The lines of the hover text of the first mark of every trace in a plane, and of the first cell of every map.
# `LINES` are those that are shown now, in a plane or in a scene.
LINES = """[...document.querySelectorAll('.hoverlayer text, .gl-container .hovertext text')].flatMap(text =>
      text.querySelector('.line') ? [...text.querySelectorAll('.line')] : [text]).map(line => line.textContent)
      .filter(line => line.trim())"""
HOVER = f"""(async () => {{
  const plot = {PLOT}, found = [];
  for (const [number, trace] of plot._fullData.entries()) {{
    const isEmpty = trace.x && trace.x.length && trace.x[0] === null; // the entry of a legend
    if (trace.visible !== true || trace.hoverinfo === 'skip' || trace.scene || trace.type === 'scattergl' || isEmpty)
      continue;
    const first = trace.type === 'heatmap' ? {{xval: 0, yval: 0}} : [{{curveNumber: number, pointNumber: 0}}];
    Plotly.Fx.hover(plot, first, trace.xaxis + trace.yaxis);
    await new Promise(requestAnimationFrame);
    const written = {LINES};
    found.push(...(written.length ? written : ['']));
  }}
  Plotly.Fx.unhover(plot);
  return found;
}})()"""
# Where the graphics card draws the first point of a trace, in a plane or in three dimensions, in pixels of the window.
CARD_POINTS = f"""{PLOT}._fullData.filter(trace => trace.visible === true && trace.hoverinfo !== 'skip' &&
    (trace.scene || trace.type === 'scattergl') && trace.x.length).map(trace => {{
  if (!trace.scene) {{
    const axis = name => {PLOT}._fullLayout[trace[name + 'axis'].replace(name, name + 'axis')];
    const [x, y] = ['x', 'y'].map(name => axis(name)._offset + axis(name).d2p(trace[name][0]));
    const box = {PLOT}.getBoundingClientRect();
    return [box.left + x, box.top + y];
  }}
  const {{container, dataScale, glplot}} = {PLOT}._fullLayout[trace.scene]._scene;
  const {{model, view, projection}} = glplot.cameraParams, box = container.getBoundingClientRect();
  const apply = (vector, matrix) => [0, 1, 2, 3].map(row =>
    vector.reduce((sum, value, column) => sum + matrix[4 * column + row] * value, 0));
  const point = [trace.x[0] * dataScale[0], trace.y[0] * dataScale[1], trace.z[0] * dataScale[2], 1];
  const [x, y, , w] = [model, view, projection].reduce(apply, point);
  return [box.left + box.width * (1 + x / w) / 2, box.top + box.height * (1 - y / w) / 2];
}})"""
SETTLED = "new Promise(done => setTimeout(done, 60))"


def overlapping(texts: list) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes have an area in common; boxes may be turned."""
    corners = np.array([each for _, each in texts]).reshape(-1, 4, 2)
    low, high = corners.min(1), corners.max(1)
    near = ((low[:, None] < high) & (low < high[:, None])).all(-1)  # boxes that are not turned have no more to show
    pairs = [(one, other) for one, other in np.argwhere(near) if one < other]
    return [(texts[one][0], texts[other][0]) for one, other in pairs if not _apart(corners[one], corners[other])]


def _apart(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether a line along a side of one of the two boxes separates them."""
    sides = [box[number + 1] - box[number] for box in (one, other) for number in (0, 1)]
    normals = [np.array([-side[1], side[0]]) for side in sides]
    return any((one @ n).max() <= (other @ n).min() or (other @ n).max() <= (one @ n).min() for n in normals)


class FigurePage:
    """A page of `write_figure`, open in a tab."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def problems(self) -> list[str]:
        """What somebody who looks at the figure and uses its menus and sliders would complain about."""
        found = [] if self.n_marks() else ["nothing is drawn"]
        found += self._unreadable()
        found += [f"hover text {line!r}" for line in self.hover_lines() if not line or re.match("=|.*%{", line)]
        for number, n_entries in enumerate(self._entries(".updatemenu-header", "updatemenus", "buttons")):
            found += self._problems_of(f"menu {number}", partial(self.choose, number), n_entries)
        for number, n_entries in enumerate(self._entries(".slider-group", "sliders", "steps")):
            found += self._problems_of(f"slider {number}", partial(self.slide, number), n_entries)
        return found + self.page.complaints + [f"asks for {address}" for address in self.page.requests]

    def _entries(self, node: str, name: str, entries: str) -> list[int]:
        n = self.page.run(f"document.querySelectorAll('{node}').length")
        return [self.page.run(f"{PLOT}._fullLayout.{name}[{number}].{entries}.length") for number in range(n)]

    def _problems_of(self, name: str, use: Callable[[int], None], n_entries: int) -> list[str]:
        """Of a menu or slider, at its last, middle, second and first entry."""
        drawn, found = set(), list[str]()
        chosen = sorted({n_entries - 1, n_entries // 2, 1, 0}, reverse=True)
        for entry in chosen:
            use(entry)
            self.page.run(SETTLED)
            drawn.add(self.drawn())
            found += [f"{problem} ({name}, entry {entry})" for problem in self._unreadable()]
        return found + [f"{name} shows {len(drawn)} pictures for {len(chosen)} entries"] * (len(drawn) < len(chosen))

    def n_marks(self) -> int:
        return self.page.run(f"document.querySelectorAll({json.dumps(MARKS)}).length")

    def _unreadable(self) -> list[str]:
        return [f"{one!r} lies on {other!r}" for one, other in overlapping(self.page.run(TEXTS))]

    def hover_lines(self) -> list[str]:
        """Of the first mark of every trace; the mouse goes to what the graphics card has drawn."""
        return self.page.run(HOVER) + [line for at in self.page.run(CARD_POINTS) for line in self._lines_at(*at)]

    def _lines_at(self, x: float, y: float) -> list[str]:
        for shift in (0, 1):  # a scene answers the second move
            self.page.send("Input.dispatchMouseEvent", type="mouseMoved", x=x + shift, y=y)
            self.page.run(SETTLED)
        return self.page.run(LINES) or [""]

    def drawn(self) -> str:
        """A digest of what is drawn: of its elements, or of the pixels of a scene in three dimensions."""
        scene = self.page.run("document.querySelectorAll('.gl-container canvas').length") > 0
        shown = self.page.send("Page.captureScreenshot")["data"] if scene else self.page.run(DRAWN)
        return hashlib.sha256(shown.encode()).hexdigest()

    def choose(self, number: int, entry: int) -> None:
        """Choose an entry of a menu: a click on the menu, and one on the entry, to which one may have to scroll."""
        self.page.run(f"document.querySelectorAll('.updatemenu-header')[{number}].dispatchEvent(new Event('click'))")
        self.page.run(
            f"""(async () => {{
              const entries = () => document.querySelectorAll('.updatemenu-dropdown-button');
              while (!entries().length) await new Promise(requestAnimationFrame);
              entries()[{entry}].dispatchEvent(new Event('click'));
            }})()"""
        )

    def slide(self, number: int, step: int) -> None:
        """Press on the rail of a slider where a step lies."""
        rail = f"document.querySelectorAll('.slider-group')[{number}].querySelector('.slider-rail-touch-rect')"
        self._click(rail, step / (self.page.run(f"{PLOT}._fullLayout.sliders[{number}].steps.length") - 1))

    def _click(self, node: str, share: float = 0.5) -> None:
        """Press and release the mouse at this share of a node's width, and half of its height."""
        box = self.page.run(f"(box => [box.x, box.y, box.width, box.height])(({node}).getBoundingClientRect())")
        at = {"x": box[0] + min(max(share * box[2], 1), box[2] - 1), "y": box[1] + box[3] / 2}
        for what in ("mousePressed", "mouseReleased"):
            self.page.send("Input.dispatchMouseEvent", type=what, button="left", clickCount=1, **at)
