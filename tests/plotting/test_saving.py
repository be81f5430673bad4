import os
import time
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest

from refusal_utils.model.artifacts import read_seeds
from refusal_utils.paper.tables import published_cosines
from refusal_utils.plotting import saving
from refusal_utils.plotting.look import heatmap
from refusal_utils.plotting.saving import chrome, model_folder, name_model, save_figure, save_table


@pytest.fixture
def figure() -> go.Figure:
    return heatmap(published_cosines(), title="Table 1", value="cosine")


def test_save_figure_writes_small_offline_html_and_the_numbers(figure, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "chrome", lambda: None)
    written = save_figure(figure, "map", "google/gemma-2-9b-it", published_cosines(), tmp_path)
    folder = tmp_path / "gemma-2-9b-it"
    assert written == [folder / "map.html", folder / "map.csv"]
    html = (folder / "map.html").read_text()
    assert len(html) < 300_000
    assert 'src="plotly.min.js"' in html
    assert "https://cdn" not in html
    assert (folder / "plotly.min.js").stat().st_size > 1e6
    pd.testing.assert_frame_equal(pd.read_csv(folder / "map.csv", index_col=0), published_cosines())


def test_every_saved_figure_names_its_model_once(figure, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "chrome", lambda: None)
    save_figure(figure, "map", "google/gemma-2-9b-it", root=tmp_path)
    save_figure(figure, "map", "google/gemma-2-9b-it", root=tmp_path)
    assert figure.layout.title.subtitle.text == "gemma-2-9b-it model"
    titled = name_model(go.Figure(layout={"title": "Cosines (tiny model)"}), "tiny")
    assert titled.layout.title.subtitle.text is None
    assert name_model(titled, "other").layout.title.subtitle.text == "other model"


def test_a_figure_of_a_dequantized_model_says_so_once(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "chrome", lambda: None)
    figure = go.Figure(layout={"title": {"text": "Cosines (tiny model)", "subtitle": {"text": "layer 3"}}})
    for _ in range(2):
        save_figure(figure, "map", "me/tiny-GGUF:tiny.gguf", root=tmp_path, origin="dequantized from Q4_K_M")
    assert figure.layout.title.subtitle.text == "dequantized from Q4_K_M, layer 3"
    assert [path.name for path in (tmp_path / "tiny").glob("*.html")] == ["map.html"]


def test_a_figure_names_a_model_on_disk_without_its_path(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "chrome", lambda: None)
    for folder in ("first", "second"):  # the second has a longer folder of figures, of which the title says nothing
        figure = go.Figure(layout={"title": "Words per prompt"})
        save_figure(figure, "words", f"/{folder}/tiny.gguf", root=tmp_path)
        assert figure.layout.title.subtitle.text == "tiny model"
    assert {path.parent.name for path in tmp_path.glob("*/words.html")} == {"tiny", "second--tiny"}


@pytest.mark.parametrize(
    ("model", "folder"),
    [("smollm2", "smollm2"), ("/models/x-q8.gguf", "x-q8"), ("a/b-GGUF:sub/c.GGUF", "c"), ("/models/x/", "x")],
)
def test_the_folder_of_a_model_has_a_plain_name(model, folder, tmp_path):
    assert model_folder(model, tmp_path) == tmp_path / folder


@pytest.mark.skipif(os.name == "nt", reason="Chrome is a shell script here")
@pytest.mark.parametrize(
    ("script", "seconds", "why"),
    [("exit 127", 30, "BrowserFailedError"), ("trap '' TERM; sleep 600 & wait", 1, "nothing within 1 seconds")],
)
def test_a_chrome_that_fails_or_hangs_is_tried_once_and_killed(figure, tmp_path, monkeypatch, script, seconds, why):
    pytest.importorskip("kaleido")
    fake = tmp_path / "chromium"
    fake.write_text(f"#!/bin/sh\necho $$ > {tmp_path / 'pid'}\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(fake))
    monkeypatch.setattr(saving, "PNG_SECONDS", seconds)
    monkeypatch.setattr(saving, "_failures", [])
    saving._chrome_server.cache_clear()
    with pytest.warns(UserWarning, match=f"^save_figure: no PNGs will be drawn, because Chrome failed .{why}"):
        written = save_figure(figure, "map", "m", root=tmp_path)
    assert save_figure(figure, "again", "m", root=tmp_path) == [tmp_path / "m" / "again.html"]  # and no warning
    assert [path.name for path in written] == ["map.html"]
    assert not list((tmp_path / "m").glob("*.png"))
    status = Path(f"/proc/{int((tmp_path / 'pid').read_text())}/stat")
    for _ in range(1000):  # it would run for ten minutes
        if not status.exists() or status.read_text().split()[2] == "Z":
            break
        time.sleep(0.05)
    else:
        pytest.fail("Chrome still runs")
    saving._chrome_server.cache_clear()
    time.sleep(1.5)  # kaleido's thread resets the warning filters a second after Chrome has ended


@pytest.mark.slow
@pytest.mark.skipif(chrome() is None, reason="no Chrome to draw a PNG with")
def test_save_figure_draws_a_png_if_chrome_is_present(figure, tmp_path):
    path = save_figure(figure, "map", "m", root=tmp_path)[-1]
    assert path.suffix == ".png"
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_save_table_writes_tables_and_named_numbers_and_notes_the_seed(tmp_path):
    table = published_cosines()
    assert save_table(table, "map", "google/gemma-2-9b-it", tmp_path, seed=4) is table
    folder = tmp_path / "gemma-2-9b-it"
    pd.testing.assert_frame_equal(pd.read_csv(folder / "map.csv", index_col=0), table)
    save_table({"share": 0.123456, "n": 3}, "numbers", "google/gemma-2-9b-it", tmp_path, seed=5)
    assert (folder / "numbers.csv").read_text() == "measure,value\nshare,0.1235\nn,3.0\n"
    assert read_seeds(folder) == {"map": 4, "numbers": 5}
