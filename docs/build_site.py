"""Builds the documentation as a site: README, guides, notebooks, and the API from docstrings. `make docs` runs it.

Pages keep their places in the repository, so that their links stay as they are; links to files that are no page lead to
the repository. Whatever mkdocs would warn of stops the build.
"""

import re
import shutil
import sys
import tempfile
from pathlib import Path

import yaml
from mkdocs.commands.build import build
from mkdocs.config import load_config
from pygments.formatters import HtmlFormatter

from refusal_utils.notebooks import read_cells

from .api_pages import write_api_pages

ROOT = Path(__file__).parents[1]
SETTINGS = ROOT / "docs" / "mkdocs.yml"
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)(?=[)#])")
MARKDOWN = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "prompts/README.md",
    "refusal_utils/bundled/weights/README.md",
    "refusal_utils/bundled/weights_tokens/README.md",
]
SHOWN = (".png", ".csv", ".js", ".html", ".json")  # what the gallery and the pages show of figures/


def build_site(folder: Path = ROOT / "build" / "site") -> Path:
    """The folder of the site, whose `index.html` opens from disk."""
    with tempfile.TemporaryDirectory() as place:
        staged = Path(place) / "pages"
        nav = stage(staged)
        settings = Path(place) / "mkdocs.yml"
        settings.write_text(SETTINGS.read_text(encoding="utf-8"), encoding="utf-8")
        build(load_config(str(settings), docs_dir=str(staged), site_dir=str(folder), nav=nav))
    return folder


def stage(staged: Path) -> list[dict]:
    """Write all pages and what they show into a folder, and return their order in the menu."""
    guides = [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]
    notebooks = [f"notebooks/{path.name}" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    cards = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "figures").rglob("*_card.md"))]
    for name in [*MARKDOWN, *cards, *guides]:
        put(staged / name, (ROOT / name).read_text(encoding="utf-8"), name)
    for name in notebooks:
        put(staged / as_page(name), notebook_page(ROOT / name), name)
    for path in (ROOT / "figures").rglob("*"):
        if path.suffix in SHOWN and "notebooks" not in path.parts:
            (staged / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, staged / path.relative_to(ROOT))
    (staged / "pygments.css").write_text(HtmlFormatter().get_style_defs(".codehilite"))
    return [
        {"Home": "README.md"},
        {"Guides": [{titled(staged / name): name} for name in guides]},
        {"Notebooks": [{titled(staged / as_page(name)): as_page(name)} for name in notebooks]},
        {"API": write_api_pages(ROOT / "refusal_utils", staged)},
        {"Project": ["CONTRIBUTING.md", "CHANGELOG.md", *MARKDOWN[3:]]},
    ]


def put(path: Path, text: str, name: str) -> None:
    """Write a page, whose links are those of the file `name` in the repository."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = re.split(r"(^```.*?^```$)", text, flags=re.M | re.S)  # code has no links
    parts[::2] = [LINK.sub(lambda link: elsewhere(link[0], ROOT / name), part) for part in parts[::2]]
    path.write_text("".join(parts), encoding="utf-8")


def elsewhere(link: str, source: Path) -> str:
    """A link of the page `source`: to a page or picture of the site as it is, to anything else in the repository."""
    path = (source.parent / link).resolve()
    name = path.relative_to(ROOT).as_posix()
    if not path.exists():
        raise FileNotFoundError(f"{source.relative_to(ROOT)} links to {link}, which is not there")
    if path.suffix == ".ipynb":
        return as_page(link)
    if name in MARKDOWN or name.startswith("figures/") or (path.parent == ROOT / "docs" and path.suffix == ".md"):
        return link
    repository = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))["repo_url"]
    return f"{repository}/blob/main/{name}"


def as_page(notebook: str) -> str:
    """The name of a notebook's page."""
    return re.sub(r"\.ipynb$", ".md", notebook)


def notebook_page(path: Path) -> str:
    """A notebook as Markdown: its prose with the reference figures, and its code."""
    pieces = []
    for cell in read_cells(path):
        source = "".join(cell["source"])
        pieces.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    return "\n\n".join(pieces) + "\n"


def titled(page: Path) -> str:
    """The title of a page without markup."""
    return re.sub(r"[`*]", "", re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.M)[1])


if __name__ == "__main__":
    print(f"The site is {build_site(*map(Path, sys.argv[1:2])) / 'index.html'}")
