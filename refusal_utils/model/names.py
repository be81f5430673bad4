"""A model's name on disk: the folder of its figures, which no other model shares, and the key of its cached rows."""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..checks import invalid

BUNDLED, BUNDLED_TOKENS, SMOLLM2 = "bundled", "bundled-tokens", "smollm2"
OWN = (BUNDLED, BUNDLED_TOKENS, SMOLLM2)  # never a folder or a hub id; no other model gets a folder of this name
RECORD = "model.json"  # in a folder of figures: the model that they are of

_PACKAGE = Path(__file__).parents[1]
FIGURES = (Path() if (_PACKAGE / "_notebooks").is_dir() else _PACKAGE.parent) / "figures"


def full_name(model: str | Path) -> str:
    """The name that tells a model from all others: an absolute path if it is a folder or file, else the name as it is.

    A name is a path if it begins like one, or if a model lies there: a folder with `config.json`, or a GGUF file.
    """
    name, path = str(model), Path(model).expanduser()
    if name in OWN:
        return name
    is_path = name.startswith((".", "~", os.sep)) or path.is_absolute() or (path / "config.json").is_file()
    is_path |= path.suffix.lower() == ".gguf" and path.is_file()
    return path.resolve().as_posix() if is_path else name


def recorded_layers(model: str | Path) -> int | None:
    """How many layers the `config.json` of a local model has, read in milliseconds; None if that is not known."""
    folder = _PACKAGE / "bundled/weights" if str(model) == BUNDLED else Path(full_name(model))
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return config.get("text_config", config).get("num_hidden_layers")
    except (OSError, ValueError, AttributeError):
        return None


def short_name(model: str | Path) -> str:
    """The last part of a model's name, for titles and folders.

    >>> short_name("google/gemma-2-9b-it"), short_name("Qwen/Qwen2.5-0.5B-Instruct-GGUF:qwen2.5-q4_k_m.gguf")
    ('gemma-2-9b-it', 'qwen2.5-q4_k_m')
    """
    name = re.split(r"[/:\\]", full_name(model).rstrip("/"))[-1]
    return re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE)


def cache_key(model: str | Path) -> str:
    """The key of a model in the cache, which several figure folders may share: short name, hash of the full one.

    >>> cache_key("bundled"), cache_key("google/chatty"), cache_key("meta/chatty")
    ('bundled', 'chatty-bacac77c', 'chatty-ddbed59a')
    """
    return str(model) if str(model) in OWN else f"{short_name(model)}-{_digest(model)}"


def model_folder(model: str | Path, root: str | Path | None = None) -> Path:
    """The folder for `model`'s figures: `<root>/<last part of its name>`, or a longer name if that is taken.

    `root` is `figures/` if None. Nothing is created: `claim_folder` does that.

    >>> model_folder("google/gemma-2-9b-it", "figures").as_posix()
    'figures/gemma-2-9b-it'
    """
    folders = [Path(FIGURES if root is None else root) / name for name in folder_names(model)]
    owners = {folder: owner(folder) for folder in folders}
    name = full_name(model)
    own = [folder for folder in folders if owners[folder] == name]
    return next(iter([*own, *(folder for folder in folders if owners[folder] is None)]), folders[-1])


def claim_folder(model: str | Path, root: str | Path | None = None) -> Path:
    """`model_folder`, after creating it and noting in `model.json` whose it is. Raises `ValueError` if that fails."""
    folder = model_folder(model, root)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if full_name(model) not in OWN and not (folder / RECORD).exists():
            with open(folder / RECORD, "x", encoding="utf-8") as file:
                json.dump({"model": full_name(model)}, file)
    except FileExistsError:
        if folder.is_dir():  # another process was faster
            return claim_folder(model, root)
        got, todo = f"the file {folder}", "Choose another folder."
        raise invalid("claim_folder", "figures need a folder", got, todo) from None
    except OSError as error:
        got = f"{folder} ({type(error).__name__})"
        must, todo = "the folder of figures must be writable", "Choose another folder."
        raise invalid("claim_folder", must, got, todo) from error
    return folder


def owner(folder: Path) -> str | None:
    """The full name of the model that the figures in `folder` are of, or None if nothing there says so.

    Without `model.json`, the tables or the directions of notebook 03 identify it.
    """
    if folder.name.lower() in OWN:
        return folder.name.lower()
    try:
        return json.loads((folder / RECORD).read_text(encoding="utf-8"))["model"]
    except FileNotFoundError:
        return next((name for name in _noted(folder) if not name.startswith(".")), None)  # relative to what?
    except (OSError, ValueError, KeyError, TypeError):
        return "" if os.path.exists(folder) else None  # a record that is damaged or being written: not ours


def folder_names(model: str | Path) -> list[str]:
    """Names for a model's folder, the best first; the last is its own for sure."""
    *_, before, _last = ["", *re.split(r"[/:\\]", full_name(model).rstrip("/"))]
    short = short_name(model)
    return [short, *([f"{before}--{short}"] if before else []), f"{short}-{_digest(model)}"]


def _noted(folder: Path) -> Iterator[str]:
    """The model as notebook 03 noted it, in a folder from before there were records."""
    if (folder / "03_map.csv").is_file():
        import pandas as pd

        with contextlib.suppress(ValueError):
            yield from pd.read_csv(folder / "03_map.csv", usecols=["model"], dtype=str)["model"].dropna().unique()
    if (folder / "03_directions.safetensors").is_file():
        from .artifacts import load_tensors

        with contextlib.suppress(ValueError, KeyError):
            yield load_tensors(folder / "03_directions.safetensors")[1]["model"]


def _digest(model: str | Path) -> str:
    return hashlib.sha256(full_name(model).encode()).hexdigest()[:8]
