"""The paper's four public data sets as rows like those of `load_prompts`, and as a folder of prompts."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from .categories import BENIGN
from .prompt_files import ORIGIN, split_in_order, write_prompt_folder
from .prompt_sets import FIELDS, prompt_kind
from .public_sources import SOURCES, read_source

OVER_REFUSAL = ("unsafe", "safe_benign")
COLUMNS = [*FIELDS, "kind", *ORIGIN]


def load_public_prompts(
    over_refusal: str = "unsafe", limit: int | None = None, files: Mapping[str, str | Path] | None = None
) -> pd.DataFrame:
    """The prompts of all four data sets: the columns of `load_prompts`, and source, source_index and revision.

    Split: CoCoNot's own (train, and test as eval); of the others the first max(32, 60 %) prompts of a category, in
    source order, are train. The benign side is WildGuardMix' harmless prompts. The non-compliant side of over-refusal is
    XSTest's unsafe prompts; `over_refusal="safe_benign"`, an older recipe, adds XSTest's safe prompts as its benign side
    (kind `look_alike`), `"unsafe"` leaves them out. `limit`: at most so many of a category in each split, the first ones.
    `files`: by name of the source, a file to read instead of the hub. Raises `ValueError` as `read_source`.
    """
    check_over_refusal("load_public_prompts", over_refusal)
    unknown = sorted(set(files or {}) - set(SOURCES))
    if unknown or (limit is not None and limit < 1):
        raise ValueError(
            f"load_public_prompts: files must be named after sources, the limit at least 1; got {unknown or limit}. "
            f"The sources are {', '.join(SOURCES)}."
        )
    rows = pd.concat([load_source(name, (files or {}).get(name)) for name in SOURCES], ignore_index=True)
    if over_refusal == "unsafe":
        rows = rows[rows["kind"] != SOURCES["xstest"].benign_kind]
    if limit is not None:
        rows = rows.groupby(["kind", "split"], sort=False).head(limit)
    return rows.reset_index(drop=True)


def check_over_refusal(function: str, over_refusal: str) -> None:
    """Raises `ValueError` for a reading of over-refusal that is neither `unsafe` nor `safe_benign`."""
    if over_refusal not in OVER_REFUSAL:
        raise ValueError(
            f"{function}: over_refusal must be 'unsafe' or 'safe_benign'; got {over_refusal!r}. "
            "Both take XSTest's unsafe prompts; the second its safe ones as benign side."
        )


def load_source(name: str, file: str | Path | None = None) -> pd.DataFrame:
    """The prompts of one source in its order, both sides, with the columns of `load_public_prompts`; as `read_source`."""
    table = read_source(name, file)
    source = SOURCES[name]
    rows = table.assign(category=table["label"].map(source.categories), pair_id="", source=name)
    rows = rows[rows["category"].notna()].reset_index(drop=True)
    prefixes = rows["category"].replace(BENIGN, source.benign_kind)
    rows["id"] = list(map(prompt_id, prefixes, rows["source"], rows["source_index"]))
    rows["split"] = source.into or split_in_order(rows["category"])
    rows["kind"] = list(map(prompt_kind, rows["id"], rows["category"]))
    rows["revision"] = source.revision if file is None else f"file {Path(file).name}"
    return rows[COLUMNS]


def prompt_id(prefix: str, source: str, source_index: int) -> str:
    """The id of a public prompt: its category (or benign kind), source, and place there.

    >>> prompt_id("humanizing", "coconot", 395)
    'humanizing-coconot-395'
    """
    return f"{prefix}-{source}-{source_index}"


def prompts_folder(prompts: str, cache_dir: str | Path) -> Path | None:
    """Where prompts lie that are asked for by name: None for `builtin`, for `paper` a folder of the public data sets.

    The latter is built in `cache_dir` on first use. An existing folder is given back. Raises `ValueError` for anything
    else, and as `load_public_prompts`.
    """
    if prompts == "builtin":
        return None
    if prompts != "paper":
        if Path(prompts).is_dir():
            return Path(prompts)
        raise ValueError(
            f"prompts_folder: prompts must be 'builtin', 'paper' or a folder; got {prompts!r}. "
            "Make a folder of a file with write_prompt_folder(read_prompt_file(...), folder)."
        )
    folder = Path(cache_dir) / "paper_prompts"
    if not folder.is_dir():
        rows = load_public_prompts()
        part = folder.with_suffix(".part")  # a build that was killed leaves no half folder
        shutil.rmtree(part, ignore_errors=True)
        write_prompt_folder(rows, part).rename(folder)
    return folder
