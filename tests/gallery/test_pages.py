"""The gallery as text: what it says, where its links lead, and what it does not say."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from refusal_utils.gallery import build_gallery
from refusal_utils.gallery.entries import keep_takeaways, read_model, takeaways_of
from refusal_utils.notebooks import find_notebooks, read_title

from .planted import HOSTILE, plant_model, planted_sweep

ROOT = Path(__file__).parents[2]


class Links(HTMLParser):
    """Every link, source, element id and reference of a page, and images without alternative text."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links, self.ids, self.without_text, self.headings = list[str](), list[str](), list[str](), list[int]()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.links += [given[name] for name in ("href", "src") if name in given]
        self.ids += [given["id"]] if "id" in given else []
        self.headings += [int(tag[1])] if re.fullmatch(r"h\d", tag) else []
        text = given.get("alt" if tag == "img" else "title")
        if tag in ("img", "iframe") and not text:
            self.without_text.append(given["src"])


@pytest.fixture
def built(tmp_path):
    plant_model(tmp_path / "chatty")
    assert [path.name for path in build_gallery(tmp_path)] == ["index.html", "explorer.html"]
    return tmp_path


def test_the_gallery_has_question_takeaway_figure_numbers_and_notebook(built):
    text = (built / "index.html").read_text()
    question = read_title(next(path for path in find_notebooks() if path.name.startswith("07"))).question
    assert question in re.sub(r"<.+?>", "", text)
    assert "<li>Refusals have <strong>11</strong> directions.</li>" in text
    assert "earlier" not in text
    for link in ("07_tradeoff.png", "07_tradeoff.csv", "07_rates.csv", "notebooks/07_steering_tradeoffs.ipynb"):
        assert f'"chatty/{link}"' in text
    assert re.search(r'<img [^>]*alt="Trade-off curves, chatty"', text)
    assert re.search(r"<dt>Judge</dt><dd><bdi>phrases</bdi>", text)
    assert re.search(r"<dt>Versions</dt><dd><bdi>torch \d", text)


def test_figures_that_set_models_side_by_side_have_a_section_of_their_own(built):
    assert "side by side" not in (built / "index.html").read_text()
    (built / "models_likeness.png").write_bytes(b"")
    (built / "models_likeness.csv").write_text("model\n")
    build_gallery(built)
    text = (built / "index.html").read_text()
    section = text[text.index("All models side by side") : text.index('id="model-1"')]
    assert "do different models arrange the eleven directions alike?" in section
    assert re.search(r'<img [^>]*src="models_likeness.png" alt="Correlations .*, side by side"', section)
    assert 'href="models_likeness.csv"' in section
    assert "chatty/" not in section


@pytest.mark.parametrize("page", ["index.html", "explorer.html"])
def test_links_of_a_built_gallery_lead_to_files_and_pictures_have_texts(built, page):
    found = Links(built / page)
    local = [link for link in found.links if not link.startswith("#")]
    assert local
    assert not [link for link in local if not (built / unquote(link)).is_file()]
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    assert len(set(found.ids)) == len(found.ids)
    assert not found.without_text
    assert found.headings[0] == 1
    assert all(later <= earlier + 1 for earlier, later in zip(found.headings, found.headings[1:], strict=False))


def test_figures_without_a_picture_are_shown_as_pages(tmp_path):
    folder = plant_model(tmp_path / "chatty")
    (folder / "07_tradeoff.png").rename(folder / "07_tradeoff.html")
    build_gallery(tmp_path)
    text = (tmp_path / "index.html").read_text()
    assert '<iframe loading="lazy" src="chatty/07_tradeoff.html" title="Trade-off curves, chatty">' in text
    assert "<img" not in text


def test_takeaways_outlive_the_executed_copies_and_change_with_them(tmp_path):
    folder = plant_model(tmp_path / "chatty")
    assert list(keep_takeaways(folder)) == ["07_steering_tradeoffs"]
    before = (folder / "takeaways.json").read_bytes()
    executed = folder / "notebooks" / "07_steering_tradeoffs.ipynb"
    text = executed.read_text()
    executed.unlink()
    assert keep_takeaways(folder)["07_steering_tradeoffs"]["takeaways"] == "- Refusals have **11** directions."
    assert (folder / "takeaways.json").read_bytes() == before
    executed.write_text(text.replace("11", "12"))
    assert keep_takeaways(folder)["07_steering_tradeoffs"]["takeaways"] == "- Refusals have **12** directions."


def test_versions_that_were_not_known_are_added_once_the_notebook_is_executed_again(tmp_path):
    folder = plant_model(tmp_path / "chatty")
    path, found = folder / "takeaways.json", keep_takeaways(folder)
    unknown = {name: {**each, "versions": ""} for name, each in found.items()}
    path.write_text(json.dumps(unknown))
    assert keep_takeaways(folder) == found
    executed = folder / "notebooks" / "07_steering_tradeoffs.ipynb"
    executed.unlink()
    path.write_text(json.dumps(unknown))
    assert keep_takeaways(folder) == unknown  # before control: nothing was executed here


def test_a_notebook_that_was_not_executed_has_no_takeaways():
    assert not any(takeaways_of(json.loads(path.read_text())["cells"]) for path in find_notebooks())


def test_only_a_sweep_of_the_folders_draw_is_recorded(tmp_path, monkeypatch):
    """Two folders of one model share a cache, which holds the sweep of one of them."""
    from refusal_utils.gallery import pages

    folder, cache = plant_model(tmp_path / "figures" / "smollm2"), tmp_path / "cache"
    cache.mkdir()
    (folder / "explorer.js").unlink()
    swept = planted_sweep()
    (cache / "07_sweep_smollm2.jsonl.gz").touch()
    monkeypatch.setattr(pages.Sweep, "load", lambda path: swept)
    build_gallery(tmp_path / "figures", cache)
    assert not (folder / "explorer.js").exists()
    swept.notes["draw"] = pages.read_setting(folder, "smollm2").draw
    build_gallery(tmp_path / "figures", cache)
    assert (folder / "explorer.js").is_file()
    assert "Prompt 0?" not in (folder / "explorer.js").read_text()
    build_gallery(tmp_path / "figures", cache, show_prompts=True)
    assert "Prompt 0?" in (folder / "explorer.js").read_text()


def test_a_damaged_model_is_left_out_and_named_and_none_makes_no_page(tmp_path, capsys):
    assert build_gallery(tmp_path) == []
    plant_model(tmp_path / "chatty")
    damaged = plant_model(tmp_path / "hurt")
    (damaged / "takeaways.json").write_text("{")
    build_gallery(tmp_path)
    assert "hurt is left out of the gallery" in capsys.readouterr().out
    text = (tmp_path / "index.html").read_text()
    assert "hurt" not in text
    assert "chatty" in text


def test_a_page_of_somebody_else_stays_and_our_own_is_renewed(tmp_path, capsys):
    plant_model(tmp_path / "chatty")
    (tmp_path / "index.html").write_text("<title>My site</title>")
    assert [path.name for path in build_gallery(tmp_path)] == ["explorer.html"]
    assert (tmp_path / "index.html").read_text() == "<title>My site</title>"
    assert "index.html is not of the gallery" in capsys.readouterr().out
    (tmp_path / "index.html").unlink()
    build_gallery(tmp_path)
    plant_model(tmp_path / "later" / "other")
    build_gallery(tmp_path)
    assert "later/other" in (tmp_path / "index.html").read_text()


def test_hostile_names_and_takeaways_stay_text(tmp_path):
    name = 'a"><b onload=hacked>&#x27;\u202e%41'
    folder = plant_model(tmp_path / name, HOSTILE)
    build_gallery(tmp_path)
    for page in ("index.html", "explorer.html"):
        text = (tmp_path / page).read_text()
        assert not re.search(r"<(b|img) (onload|src=x)", text)
        assert "<script>hacked" not in text
        links = [unquote(link) for link in Links(tmp_path / page).links]
        assert any(link.startswith(folder.name) for link in links)


def test_committed_pages_show_every_committed_model_and_are_small():
    figures = ROOT / "figures"
    index, explorer = ((figures / name).read_text(encoding="utf-8") for name in ("index.html", "explorer.html"))
    models = [read_model(path.parent, figures) for path in figures.rglob("01_draw.csv")]
    assert len(models) >= 6
    for model in models:
        assert f"<bdi>{model.title}</bdi>" in index
        assert f'src="{model.key}/explorer.js"' in explorer
        assert model.has_record
    parts = [*figures.glob("*.html"), *figures.rglob("explorer.js"), *figures.rglob("takeaways.json")]
    assert sum(path.stat().st_size for path in parts) < 3e6
