"""Writes the gallery (`index.html`) and the explorer (`explorer.html`) of a folder of figures."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from ..judging import STYLES
from ..model.names import FIGURES, cache_key, owner
from ..paper.models import model_folders
from ..paper.setting import read_setting
from ..plotting.look import CONTROL_LOOKS, label
from ..prompts.categories import ALL_CATEGORIES, CATEGORIES
from ..tradeoff import Sweep
from ..tradeoff.rates import MAX_DEGENERATE
from .entries import ModelEntry, read_comparison, read_model
from .recorded import OUTCOMES, script_json, write_record

INDEX, EXPLORER = "index.html", "explorer.html"
_TITLE = "<title>Refusal geometry"  # of both pages


def build_gallery(
    figures: str | Path = FIGURES, cache_dir: str | Path | None = None, *, show_prompts: bool = False
) -> list[Path]:
    """The paths of the gallery and the explorer, written to `figures` for all models in it; none without a model.

    A sweep in `cache_dir` renews the record of its model that the explorer reads (`explorer.js` in its folder). The
    record has texts of benign prompts only, unless `show_prompts`. Takeaways are those of executed notebooks. A page
    of these names that somebody else wrote is left as it is.
    """
    root = Path(figures)
    models = [each for folder in model_folders(root) if (each := _read(folder, root, cache_dir, show_prompts))]
    values: dict[str, Any] = {"models": models, "known": script_json(_known(models))}
    values |= {"comparison": read_comparison(root), "broken": MAX_DEGENERATE}
    return [_write(root / name, **values) for name in (INDEX, EXPLORER) if models and _is_free(root / name)]


def _read(folder: Path, root: Path, cache_dir: str | Path | None, show_prompts: bool) -> ModelEntry | None:
    """The entry of one model; None, with the reason printed, if its tables or its sweep cannot be read."""
    try:
        if cache_dir is not None:
            _renew_record(folder, root, Path(cache_dir), show_prompts)
        return read_model(folder, root)
    except (ValueError, KeyError, OSError) as error:
        print(f"{folder.name} is left out of the gallery: {str(error) or type(error).__name__}")
        return None


def _renew_record(folder: Path, root: Path, cache_dir: Path, show_prompts: bool) -> None:
    """Write the folder's record if the cached sweep is of its draw: several folders may share a model and a cache."""
    name = owner(folder) or folder.name
    path = cache_dir / f"07_sweep_{cache_key(name)}.jsonl.gz"
    swept = Sweep.load(path) if path.is_file() else None
    if swept is not None and swept.notes.get("draw") == read_setting(folder, name).draw:
        write_record(folder, swept, folder.relative_to(root).as_posix(), show_prompts=show_prompts)


def _known(models: list[ModelEntry]) -> dict[str, Any]:
    """What the explorer needs to know besides the records: names, titles and looks."""
    looks = {each.id: [each.title, each.colour, each.cluster] for each in CATEGORIES}
    looks |= {name: [name, look[0], "control"] for name, look in CONTROL_LOOKS.items()}
    return {
        "models": {model.key: model.title for model in models if model.has_record},
        "looks": looks,
        "categories": [label(name) for name in ALL_CATEGORIES],
        "styles": STYLES,
        "outcomes": OUTCOMES,
        "broken": MAX_DEGENERATE,
    }


def _is_free(path: Path) -> bool:
    """Whether there is no such page, or one of ours; says so if it is another's."""
    is_free = not path.is_file() or _TITLE in path.read_text(encoding="utf-8", errors="replace")
    if not is_free:
        print(f"{path.name} is not of the gallery and stays as it is; move it, or choose another folder")
    return is_free


def _write(path: Path, **values: Any) -> Path:
    path.write_text(_environment().get_template(path.name).render(values), encoding="utf-8")
    return path


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    markdown = MarkdownIt("commonmark", {"html": False})
    environment.filters["markdown"] = lambda text: Markup(markdown.render(text))
    environment.filters["inline"] = lambda text: Markup(markdown.renderInline(text))
    return environment
