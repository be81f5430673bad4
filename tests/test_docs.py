"""The documentation as a site: it builds without a warning, and every link and anchor in it leads somewhere."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

import refusal_utils
from refusal_utils.notebooks import find_notebooks

pytest.importorskip("mkdocs", reason="the site needs the extra `docs`")


class Links(HTMLParser):
    """What a page links to and shows, and the ids in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links, self.ids = list[str](), set[str]()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.links += [given[name] for name in ("href", "src") if given.get(name)]
        self.ids |= {given["id"]} if given.get("id") else set()


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    from docs.build_site import build_site

    return build_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Links]:
    return {path: Links(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_link_and_anchor_of_the_site_leads_somewhere(site, pages):
    wrong, n_links, n_anchors = [], 0, 0
    for page, found in pages.items():
        for link in found.links:
            name, _, anchor = link.partition("#")
            if ":" in name or name.startswith("//"):
                continue
            n_links += 1
            path = (page.parent / unquote(name)).resolve() if name else page
            if not path.is_file():
                wrong.append((page.relative_to(site), link))
            elif anchor and path.suffix == ".html":
                n_anchors += 1
                wrong += [(page.relative_to(site), link)] * (unquote(anchor) not in pages[path].ids)
    assert wrong == []
    assert n_links > 1000
    assert n_anchors > 500


def test_the_site_has_the_readme_the_notebooks_and_every_public_name(site, pages):
    readme, notebooks = pages[site / "index.html"], {path.stem for path in find_notebooks()}
    assert {f"notebooks/{name}.html" for name in notebooks} <= set(readme.links)
    ids = set().union(*(found.ids for path, found in pages.items() if path.parent.name == "api"))
    named = [getattr(refusal_utils, name) for name in refusal_utils.__all__]
    defined = [each for each in named if hasattr(each, "__qualname__")]
    assert len(defined) > 15
    assert {f"{each.__module__}.{each.__qualname__}" for each in defined} <= ids


def test_docstrings_become_text_and_examples_become_code(site):
    shown = (site / "api" / "refusal_utils.directions.html").read_text(encoding="utf-8")
    assert "&gt;&gt;&gt;" in shown
    assert "<blockquote>" not in shown
    assert "[rank, d_model]" in shown


def test_a_link_to_a_heading_that_does_not_exist_stops_the_build(tmp_path, monkeypatch):
    """Before control of the strict build."""
    from docs import build_site

    def stage(folder: Path) -> list:
        folder.mkdir()
        (folder / "README.md").write_text("# Title\n\n[a link](#nowhere)\n")
        (folder / "pygments.css").write_text("")
        return [{"Home": "README.md"}]

    monkeypatch.setattr(build_site, "stage", stage)
    with pytest.raises(SystemExit, match="warning"):
        build_site.build_site(tmp_path / "site")


def test_a_link_to_a_file_that_does_not_exist_stops_the_build_and_source_files_are_in_the_repository():
    from docs.build_site import ROOT, elsewhere

    assert elsewhere("../pyproject.toml", ROOT / "docs" / "install.md").endswith("/blob/main/pyproject.toml")
    assert elsewhere("03_direction_geometry.ipynb", ROOT / "notebooks" / "x.ipynb") == "03_direction_geometry.md"
    with pytest.raises(FileNotFoundError, match=r"docs/install\.md links to gone\.md"):
        elsewhere("gone.md", ROOT / "docs" / "install.md")
