"""Loading prompts: the built-in ones, the paper's public data sets, or a folder or file of your own."""

from pathlib import Path

import pandas as pd

from ..checks import did_you_mean, invalid, require, require_types
from .categories import ALL_CATEGORIES
from .files import SPLITS, check_repeats, read_prompt_file
from .public_datasets import paper_folder
from .tables import ONE_FILE, PROMPT_FILES


def load_prompts(
    category: str | None = None,
    split: str | None = None,
    *,
    source: str | Path = "builtin",
    cache_dir: str | Path = ".cache",
) -> pd.DataFrame:
    """The prompts of `source`: columns id, category, text, split, pair_id (empty without a twin) and kind.

    `source` is `"builtin"`, `"paper"` (the public data sets, downloaded into `cache_dir` on first use), a folder with
    `<category>.jsonl` (or .csv, .tsv, .txt) for every category and `benign.jsonl`, or one .jsonl, .csv or .tsv file
    whose prompts name their category. `category` and `split` (`"train"` or `"eval"`) select some of them. `kind` is the
    category, and for benign prompts `ordinary`, `look_alike` or `twin`. Raises `ValueError` for an unknown source,
    category or split, for a category without prompts, for a repeated id, and for a broken line (file and line number).
    So does a prompt of your own that is both refused and benign, or in both splits (`check_repeats`); public data may
    have some.
    """
    for name, value, known in (("category", category, ALL_CATEGORIES), ("split", split, SPLITS)):
        todo = did_you_mean(value, known) or f"Use one of {', '.join(known)}, or leave it out."
        require(value in (None, *known), "load_prompts", f"the {name} must be a known one", repr(value), todo)
    is_paper = source == "paper"
    files = [(file, read_prompt_file(file, own, repeats=is_paper)) for file, own in _prompt_files(source, cache_dir)]
    found = pd.concat([rows for _, rows in files], ignore_index=True).fillna({"language": ""})
    wanted = ALL_CATEGORIES if category is None else (category,)
    missing = [name for name in wanted if name not in set(found["category"])]
    must, todo = "there must be prompts of every category and benign ones", "Add some, each with its category."
    require(not missing, "load_prompts", must, f"no {', '.join(missing)} in {source}", todo)
    for id in found["id"][found["id"].duplicated()]:
        where = " and ".join(str(file) for file, rows in files if id in set(rows["id"]))
        raise invalid("load_prompts", "ids must be unique", f"{id!r} in {where}", "Rename one.")
    if len(files) > 1 and not is_paper:
        check_repeats("load_prompts", found, {file: rows["id"] for file, rows in files})
    found = found.sort_values("category", key=lambda names: names.map(ALL_CATEGORIES.index), kind="stable")
    selected = found["category"].isin(wanted) & (found["split"].eq(split) | (split is None))
    return found[selected].reset_index(drop=True)


def _prompt_files(source: str | Path, cache_dir: str | Path) -> list[tuple[Path, str | None]]:
    """(file, category of those of its prompts that name none) for every file of `source`."""
    require_types("load_prompts", (str, Path), source=source)
    path = prompts_dir() if source == "builtin" else paper_folder(cache_dir) if source == "paper" else Path(source)
    if path.is_file() and path.suffix.lower() in ONE_FILE:
        return [(path, None)]
    inside = sorted(path.iterdir()) if path.is_dir() else []
    files = [file for file in inside if file.suffix.lower() in PROMPT_FILES and file.stem in ALL_CATEGORIES]
    forms = ", ".join(ONE_FILE)
    must = f"source must be 'builtin', 'paper', a folder with a file for every category, or a file of {forms}"
    require(bool(files), "load_prompts", must, repr(str(source)), "Check the spelling.")
    names = [file.stem for file in files]
    twice = [file.name for file in files if names.count(file.stem) > 1]
    must, todo = "a category must have one file", "Keep one of them."
    require(not twice, "load_prompts", must, f"{', '.join(twice)} in {path}", todo)
    return [(file, file.stem) for file in files]


def prompts_dir() -> Path:
    """The folder of the built-in prompts: inside an installed wheel, or `prompts/` of the checkout."""
    installed = Path(__file__).parents[1] / "_prompts"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "prompts"
