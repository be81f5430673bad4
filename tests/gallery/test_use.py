"""The gallery and the explorer in a browser, opened from disk: what people see and use, in light and in dark."""

import shutil
import subprocess
from itertools import combinations
from pathlib import Path

import pytest

from refusal_utils.gallery import build_gallery
from refusal_utils.gallery.recorded import write_record
from refusal_utils.plotting.saving import chrome

from ..browser import open_browser
from .planted import HOSTILE, LONG, plant_model, planted_sweep

# Every visible text with the colour it is drawn in and the colours of what lies behind it, the nearest first.
TEXTS = """[...document.querySelectorAll('body *')].filter(node =>
    [...node.childNodes].some(each => each.nodeType === 3 && each.textContent.trim()) &&
    node.checkVisibility() && !node.closest('script, style, option, noscript')).map(node => {
  const own = getComputedStyle(node), behind = [];
  for (let each = node; each; each = each.parentElement) behind.push(getComputedStyle(each).backgroundColor);
  return [node.textContent.trim().slice(0, 40), node.closest('svg') ? own.fill : own.color, behind];
})"""
BOXES = "[...document.querySelectorAll('#plot text')].map(node => { const box = node.getBoundingClientRect();" + (
    " return [node.textContent, box.left, box.top, box.right, box.bottom]; })"
)
MARKS = "[...document.querySelectorAll('#plot [data-mark]')].map(node => [node.dataset.mark, node.getAttribute('d')])"


COMMITTED = Path(__file__).parents[2] / "figures"


@pytest.fixture(scope="module")
def page():
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    root = tmp_path_factory.mktemp("figures")
    for name in ("chatty", "other"):
        plant_model(root / name)
    write_record(root / "other", planted_sweep(), "other", show_prompts=True)
    build_gallery(root)
    return root


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2."""
    parts = [float(part) / 255 for part in colour.split("(")[1].rstrip(")").split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(colour: str, behind: list[str]) -> float:
    opaque = next((each for each in behind if each.startswith("rgb(")), "rgb(255, 255, 255)")
    low, high = sorted([luminance(colour), luminance(opaque)])
    return (high + 0.05) / (low + 0.05)


def test_contrast_of_black_on_white_is_21_and_of_grey_less():
    assert contrast("rgb(0, 0, 0)", ["rgba(0, 0, 0, 0)", "rgb(255, 255, 255)"]) == pytest.approx(21)
    assert contrast("rgb(119, 119, 119)", ["rgb(255, 255, 255)"]) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["index.html", "explorer.html"])
def test_all_text_can_be_read_in_light_and_in_dark(page, figures, name, dark):
    page.open(figures / name, dark=dark)
    texts = page.run(TEXTS)
    assert len(texts) > 20
    assert not [text for text, colour, behind in texts if contrast(colour, behind) < 4.5]
    grounds = {next(each for each in behind if each.startswith("rgb(")) for _, _, behind in texts}
    assert {luminance(ground) < 0.2 for ground in grounds} == {dark}  # the page has the scheme that was asked for
    assert not page.complaints
    assert not page.requests


@pytest.mark.parametrize("name", ["index.html", "explorer.html"])
@pytest.mark.parametrize("width", [400, 1280])
def test_pages_fit_the_window(page, figures, name, width):
    page.open(figures / name, width=width)
    assert page.run("document.documentElement.scrollWidth") <= width


def test_dials_and_the_slider_move_the_marks(page, figures):
    page.open(figures / "explorer.html")
    page.use("#all", 1)  # strength 0
    unsteered = dict(page.run(MARKS))
    assert set(unsteered) == {"safety_core", "humanizing", "random 0"}
    page.use("[data-direction=safety_core]", 3)
    steered = dict(page.run(MARKS))
    assert {name for name in unsteered if steered[name] != unsteered[name]} == {"safety_core"}
    assert page.run("document.querySelector('#all-value').textContent") == "mixed"
    assert "At 2 gaps: RR 1.00" in page.run("document.querySelector('#summary-A').textContent")
    page.use("#all", 3)
    assert dict(page.run(MARKS))["humanizing"] != unsteered["humanizing"]
    assert page.run("document.querySelectorAll('#plot .curve').length") == 2  # controls are points
    assert not page.complaints


def test_keys_move_a_dial(page, figures):
    page.open(figures / "explorer.html")
    page.use("#all", 1)
    page.run("document.querySelector('[data-direction=humanizing]').focus()")
    page.press("ArrowRight", 39)
    assert page.run("document.activeElement.getAttribute('aria-valuetext')") == "1 gaps"


def test_menus_change_tables_and_responses(page, figures):
    page.open(figures / "explorer.html")
    page.use("#all", 3)
    cells = "[...document.querySelectorAll('#%s tbody tr')].map(row => [...row.cells].map(cell => cell.innerText))"
    rates, styles = page.run(cells % "rates"), page.run(cells % "styles")
    assert len(rates) == 12
    assert rates[-1][0] == "Benign"
    assert rates[-1][1].startswith("1.00")
    assert rates[4][1].startswith("none")  # no prompt of that kind
    assert ["apology", "1.00", "1.00"] in styles
    page.use("#direction-B", "random 0")
    assert page.run(cells % "rates")[-1][2].startswith("0.50")
    answers = page.run(cells % "responses")
    assert len(answers) == 10
    assert {row[1].split("\n")[0] for row in answers} == {"refused"}
    assert any("Boil it, random 0 at 2.0." in row[2] for row in answers)


def test_harmful_prompts_are_shown_only_on_request(page, figures):
    page.open(figures / "explorer.html")
    assert not page.run("document.querySelector('#harmful').checkVisibility()")  # not even recorded
    page.use("#model-A", "other")
    n_benign = page.run("document.querySelectorAll('#responses tbody tr').length")
    page.use("#harmful input", True)
    assert page.run("document.querySelectorAll('#responses tbody tr').length") == n_benign + 4
    assert not page.complaints


def test_two_models_are_compared_in_one_plot(page, figures):
    page.open(figures / "explorer.html")
    page.use("#model-B", "other")
    assert page.run("document.querySelectorAll('#plot .mark.other').length") == 3
    assert page.run("document.querySelectorAll('#plot .curve.other').length") == 2
    assert page.run("document.querySelector('#model-A').value") == "chatty"
    assert page.run("document.querySelector('#all-value').textContent") == "2 gaps"  # the middle of the positive ones


@pytest.mark.parametrize("width", [400, 1280])
def test_labels_of_the_plot_do_not_overlap(page, figures, width):
    page.open(figures / "explorer.html", width=width)
    for strength in range(4):
        page.use("#all", strength)
        for one, other in combinations(page.run(BOXES), 2):
            apart = one[3] <= other[1] or other[3] <= one[1] or one[4] <= other[2] or other[4] <= one[2]
            assert apart, (one, other)


def test_hostile_texts_and_names_stay_text(page, tmp_path):
    name = "a\"><b onload='hacked = 1'>\u202e"
    plant_model(tmp_path / name, HOSTILE + LONG)
    build_gallery(tmp_path)
    for file in ("index.html", "explorer.html"):
        page.open(tmp_path / file)
        assert page.run("typeof hacked") == "undefined"
        assert page.run("document.querySelectorAll('b, img[src=x], main script').length") == 0
        assert page.run("document.documentElement.scrollWidth") <= 1280
        assert not page.complaints
    shown = page.run("[...document.querySelectorAll('#responses .text')].map(node => node.textContent)")
    assert [text for text in shown if text.startswith(HOSTILE + LONG)]
    assert page.run("document.querySelector('#model-A').selectedOptions[0].text").startswith(name)
    direction = "getComputedStyle(document.querySelector('#responses .text')).unicodeBidi"
    assert page.run(direction) == "plaintext"


def test_the_committed_pages_show_every_picture_and_mark(page):
    page.open(COMMITTED / "index.html")
    assert page.run("document.images.length") >= 50
    assert page.run("[...document.images].filter(image => !(image.complete && image.naturalWidth)).length") == 0
    assert not page.complaints + page.requests
    page.open(COMMITTED / "explorer.html")
    for number in range(page.run("document.querySelector('#model-A').options.length")):
        page.use("#model-A", page.run(f"document.querySelector('#model-A').options[{number}].value"))
        assert len(page.run(MARKS)) >= 11
    assert not page.complaints + page.requests


def test_a_plain_browser_may_read_the_records_from_disk(figures, tmp_path):
    """The client above loosens the rules for files; this browser has its usual ones."""
    if chrome() is None:
        pytest.skip("needs Chromium")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom"]
    command = [chrome(), *flags, f"--user-data-dir={tmp_path}", (figures / "explorer.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    assert 'data-mark="safety_core"' in shown
    assert shown.count("<option") == 10
    shutil.rmtree(tmp_path, ignore_errors=True)
