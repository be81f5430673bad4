"""Texts from outside in every view of a notebook or report, in a browser: no script runs, and they stay text."""

import pandas as pd
import pytest
import torch

from refusal_utils.gallery.probe import Probe
from refusal_utils.heads.attention import Attention
from refusal_utils.latents.cards import LatentCards
from refusal_utils.paper.comparison import Comparison
from refusal_utils.paper.report import comparison_page
from refusal_utils.paper.setting import Setting
from refusal_utils.plotting.saving import save_figure
from refusal_utils.plotting.texts import visible

from .browser import Page, open_browser, reads_forward
from .gallery.planted import HOSTILE, LONG

WAITING = "new Promise(done => setTimeout(done, 500))"


@pytest.fixture(scope="module")
def page():
    with open_browser() as opened:
        yield opened


@pytest.fixture
def show(page, tmp_path):
    """Opens HTML as a page of its own and returns the page once its scripts ran."""

    def shown(html: str) -> Page:
        path = tmp_path / "page.html"
        path.write_text(html if html.startswith("<!DOCTYPE") else f"<!DOCTYPE html><meta charset=utf-8>{html}", "utf-8")
        page.open(path).run(WAITING)
        return page

    yield shown
    assert page.run("typeof hacked") == "undefined"
    assert page.run("document.querySelectorAll('img').length") == 0
    assert not page.complaints
    assert not page.requests


def test_the_browser_sees_a_script_that_runs_and_a_text_that_is_turned(page, tmp_path):
    """Before control of all tests below."""
    path = tmp_path / "page.html"
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8><p>\u202e, ends here</p>{HOSTILE}", "utf-8")
    page.open(path).run(WAITING)
    assert page.run("hacked") == 1
    assert page.run("document.querySelectorAll('img').length") == 1
    assert not reads_forward(page, "ends here")


def test_a_strip_of_tokens_shows_them_as_they_are_in_their_order(show):
    tokens = ["first", HOSTILE, "</script>", LONG, "\u202e", "last"]
    page = show(Attention(tokens, torch.rand(1, 1, 6)).strip(0, -1, f"{HOSTILE}, head 5.4"))
    assert page.run("[...document.querySelectorAll('span')].map(each => each.textContent)") == tokens
    assert page.run("document.querySelector('b').textContent").startswith(visible(HOSTILE))
    assert reads_forward(page, "last")
    assert reads_forward(page, "head 5.4")


def test_circuitsvis_shows_tokens_as_they_are(show):
    pytest.importorskip("circuitsvis")
    tokens = ["first", HOSTILE, "</script><script>hacked = 1</script>", "&lt;", LONG, "last"]
    page = show(Attention(tokens, torch.full((2, 6, 6), 0.2)).patterns([1, 0]))
    texts = page.run("[...document.querySelectorAll('.tokens button')].map(each => each.textContent)")
    assert [text.replace("\u00a0", " ") for text in texts] == [visible(each) for each in tokens]
    assert page.run("document.querySelectorAll('canvas').length") == 3  # two heads, and the chosen one
    assert reads_forward(page, "last")


def test_tables_of_notebooks_show_texts_as_they_are(show):
    responses = pd.DataFrame(
        {"condition": [HOSTILE, LONG], "outcome": "refused", "evidence": None, "response": HOSTILE}
    )
    table = Probe((), torch.zeros(1, 0), responses, ("advice",), 5).table()
    styled = table.style.format(escape="html").format_index(escape="html").to_html()
    page = show(f"{table._repr_html_()}{styled}<p>ends here</p>")
    cells = page.run("[...document.querySelectorAll('th, td')].map(each => each.textContent)")
    assert [cell for cell in cells if cell.strip() == HOSTILE.strip()]
    assert LONG.strip() in {cell.strip() for cell in cells}
    assert reads_forward(page, "refused")


def test_latent_cards_show_texts_as_they_are(show, tmp_path):
    rows = pd.DataFrame({"label": [HOSTILE, LONG], "category": "advice", "tokens": [HOSTILE, "</script>"]}, [3, 4])
    marked = {3: ["one, ends here"], 4: []}
    cards = LatentCards(rows, pd.DataFrame({HOSTILE: [0.5, 0.25]}, [3, 4]), marked)
    page = show(cards.write(tmp_path / "cards", HOSTILE).read_text("utf-8"))
    cells = page.run("[...document.querySelectorAll('td')].map(each => each.textContent)")
    assert cells.count(HOSTILE) == 2
    assert {LONG, "</script>"} <= set(cells)
    page.use("#filter", "word word")
    assert page.run("document.querySelector('#shown').textContent") == "1 of 2"
    assert page.run("document.title") != ""


def test_the_report_shows_names_as_they_are(show):
    columns = ["table", "quantity", "about", "condition", "verdict", "note"]
    rows = pd.DataFrame([["1", "cosine", HOSTILE, LONG, "missing", HOSTILE]], columns=columns)
    for name in ("ours", "theirs", "difference"):
        rows[[name, f"{name} low", f"{name} high"]] = 0.5
    rows[["low", "high"]] = 0.5
    notes = {"dtype": HOSTILE, "system_prompt": HOSTILE, "decision_source": HOSTILE, "thinking": HOSTILE}
    setting = Setting(HOSTILE, (5,), (-2,), HOSTILE, (HOSTILE,), model_notes=notes)
    page = show(comparison_page(Comparison(rows, setting)))
    cells = page.run("[...document.querySelectorAll('td')].map(each => each.textContent)")
    assert cells.count(HOSTILE) == 2
    assert LONG in cells
    assert reads_forward(page, "and the paper")
    assert reads_forward(page, "resid_pre of layer")


def test_a_plot_shows_tokens_and_names_as_they_are(show, tmp_path):
    tokens = ("first", HOSTILE, "'</script>\"", "<a href='https://x'>", "&lt;", "last")
    figure = Probe(tokens, torch.zeros(2, 6), pd.DataFrame(), (HOSTILE, "<b>x</b>"), 5).figure()
    written = save_figure(figure.update_layout(height=900), "map", "<a href='x'>\u202e<script>", root=tmp_path)[0]
    page = show(written.read_text("utf-8").replace("plotly.min.js", (written.parent / "plotly.min.js").as_uri()))
    texts = page.run("[...document.querySelectorAll('.ytick text, .xtick text')].map(each => each.textContent)")
    shown = [f"{number} {visible(token)}" for number, token in enumerate(tokens)]
    assert {text.replace("\u2028", "\\u2028") for text in texts} == {
        text.replace("\u2028", "\\u2028") for text in (*shown, "<b>x</b>", visible(HOSTILE))
    }
    assert page.run("document.querySelectorAll('.js-plotly-plot .plot-container a:not(.modebar-btn)').length") == 0
    assert "<a href='x'>\\u202e<script> model" in page.run("document.querySelector('.infolayer').textContent")
