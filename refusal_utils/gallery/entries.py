"""What the gallery shows of one model: its setting, and per notebook the question, takeaways, figures and tables."""

import json
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .. import notebooks
from ..model.names import owner
from ..notebooks import find_notebooks, read_cells, read_title
from ..paper.claims import CLAIMS, check_claims
from ..paper.models import model_title
from .recorded import RECORD

TAKEAWAYS = "takeaways.json"  # in a model's folder, so that the gallery can be built where nothing was executed
_PACKAGES = ("torch", "transformers", "transformer-lens", "numpy", "scikit-learn")
_SETTING = {
    "layer": "Layer",
    "pos": "Position",
    "place": "Place chosen by",
    "prompts": "Prompts",
    "selection": "Selected by",
    "per_side": "Prompts a side",
    "judge": "Judge",
    "tokens": "Tokens a response",
    "dtype": "Precision",
    "weights": "Weights",
}


@dataclass(frozen=True)
class Picture:
    """A figure of a notebook: its name, what it shows, and the files (`png`, `html`, `csv`) that exist, as links."""

    name: str
    caption: str
    files: dict[str, str]


@dataclass(frozen=True)
class Entry:
    """One notebook on one model. `question` and `takeaways` are Markdown; `executed` is a link, or empty."""

    name: str
    question: str
    takeaways: str
    pictures: tuple[Picture, ...]
    tables: dict[str, str]
    executed: str

    @property
    def title(self) -> str:
        """The notebook's number and name in words.

        >>> Entry("07_steering_tradeoffs", "", "", (), {}, "").title
        '07 · Steering tradeoffs'
        >>> Entry("many_models", "", "", (), {}, "").title
        'Many models'
        """
        number, _, words = self.name.partition("_") if self.name[0].isdigit() else ("", "", self.name)
        return " · ".join(filter(None, (number, words.replace("_", " ").capitalize())))


@dataclass(frozen=True)
class ModelEntry:
    """One model: its folder below the gallery's, title, setting, verdicts on the paper's claims, and notebooks."""

    key: str
    title: str
    setting: dict[str, str]
    verdicts: dict[str, str]
    notebooks: tuple[Entry, ...]
    has_record: bool


def read_model(folder: Path, root: Path) -> ModelEntry:
    """What `folder` holds, with links relative to `root`. Takeaways of executed notebooks are kept in the folder."""
    name = owner(folder) or folder.name
    claims, kept = check_claims(folder, name), keep_takeaways(folder)
    known = {label: _shown(claims.setting[field]) for field, label in _SETTING.items()}
    versions = " or ".join(dict.fromkeys(each["versions"] for each in kept.values() if each["versions"]))
    entries = [_entry(path, path.name[:2], folder, root, kept.get(path.stem, {})) for path in find_notebooks()]
    key = folder.relative_to(root).as_posix()
    return ModelEntry(
        key=key,
        title=model_title(folder).replace(folder.name, key, 1),
        setting={label: value for label, value in {**known, "Versions": versions}.items() if value},
        verdicts={text: claims.verdict(number) for number, text in CLAIMS.items()},
        notebooks=tuple(each for each in entries if each.pictures or each.tables),
        has_record=(folder / RECORD).is_file(),
    )


def read_comparison(root: Path) -> Entry | None:
    """What `report --models` left in `root`, with the question and captions of the notebook that shows it, or None."""
    notebook = notebooks.NOTEBOOKS / "many_models.ipynb"
    return _entry(notebook, "models", root, root, {}) if any(root.glob("models_*")) else None


def keep_takeaways(folder: Path) -> dict[str, dict[str, str]]:
    """By notebook, the `takeaways` of its executed copy and the `versions` of packages that it ran with.

    They are kept in `takeaways.json`; those of a notebook change when its executed copy says something else, or if the
    versions were not known.
    """
    path = folder / TAKEAWAYS
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = {each.stem: takeaways_of(read_cells(each)) for each in sorted((folder / "notebooks").glob("*.ipynb"))}
    known = {name: each["takeaways"] for name, each in kept.items() if each["versions"]}
    new = {name: text for name, text in found.items() if text and text != known.get(name)}
    if new:
        kept |= {name: {"takeaways": text, "versions": _versions()} for name, text in new.items()}
        path.write_text(json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return kept


def takeaways_of(cells: list[dict[str, Any]]) -> str:
    """The Markdown that code displayed last below the heading "Takeaways"; empty if it was not executed."""
    prose = ["".join(cell["source"]) if cell["cell_type"] == "markdown" else "" for cell in cells]
    first = next((number for number, text in enumerate(prose) if "## Takeaways" in text), len(cells))
    outputs = [output for cell in cells[first:] for output in cell.get("outputs", ())]
    shown = ["".join(output.get("data", {}).get("text/markdown", "")).strip() for output in outputs]
    return next(filter(None, reversed(shown)), "")


def _entry(notebook: Path, prefix: str, folder: Path, root: Path, kept: dict[str, str]) -> Entry:
    """One notebook and its files in `folder`, whose names begin with `prefix` and an underscore."""
    executed = folder / "notebooks" / notebook.name
    files = {path.name: path.relative_to(root).as_posix() for path in sorted(folder.glob(f"{prefix}_*.*"))}
    captions = _captions(notebook)
    pictured = {Path(name).stem for name in files if name.endswith((".png", ".html"))}
    others = [name for name in sorted(pictured) if name not in captions]
    pictures = [_picture(name, captions.get(name, ""), files) for name in (*captions, *others) if name in pictured]
    tables = {name: link for name, link in files.items() if name.endswith(".csv") and Path(name).stem not in pictured}
    question = read_title(notebook).question
    link = executed.relative_to(root).as_posix() if executed.is_file() else ""
    return Entry(notebook.stem, question, kept.get("takeaways", ""), tuple(pictures), tables, link)


def _picture(name: str, caption: str, files: dict[str, str]) -> Picture:
    kinds = {kind: files[f"{name}.{kind}"] for kind in ("png", "html", "csv") if f"{name}.{kind}" in files}
    return Picture(name, caption or name.partition("_")[2].replace("_", " ").capitalize(), kinds)


def _captions(notebook: Path) -> dict[str, str]:
    """What the notebook's Markdown calls its reference pictures, by the figure's name and in the order of the text."""
    prose = "\n".join("".join(cell["source"]) for cell in read_cells(notebook) if cell["cell_type"] == "markdown")
    return {name: caption for caption, name in re.findall(r"!\[([^]]+)\]\(\S+?/((?:\d\d|models)_\w+)\.png\)", prose)}


def _versions() -> str:
    return ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name)))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _shown(value: Any) -> str:
    """A value of the setting as text, `12` for 12.0 and empty if it is unknown."""
    return "" if value in ("", None) or value != value else f"{value:g}" if isinstance(value, float) else str(value)
