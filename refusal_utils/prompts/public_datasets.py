"""The paper's four public data sets: as rows like those of `load_prompts`, and as a folder of prompts."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ..checks import require
from .categories import BENIGN
from .files import FIELDS, ORIGIN, prompt_kind, split_in_order, write_prompt_folder
from .public_sources import FILE_KINDS, SOURCES, read_source

OVER_REFUSAL = ("unsafe", "safe_benign")
COLUMNS = [*FIELDS, "kind", *ORIGIN]


def load_public_prompts(
    over_refusal: str = "unsafe",
    limit: int | None = None,
    files: Mapping[str, str | Path] | str | Path | None = None,
) -> pd.DataFrame:
    """The prompts of all four data sets: the columns of `load_prompts`, and source, source_index and revision.

    CoCoNot has its own splits (its test split is `eval` here); the other sources are divided by `split_in_order`. The
    benign side is WildGuardMix's harmless prompts, and XSTest's unsafe prompts are the category over_refusal.
    `over_refusal="safe_benign"`, an older recipe, adds XSTest's safe prompts as benign ones (kind `look_alike`). `limit`
    keeps the first prompts of each category in each split. `files` names a file for a source to be read instead of the
    hub, or the folder of such files (`source_files`). Raises `ValueError` as `read_source` does.
    """
    check_over_refusal("load_public_prompts", over_refusal)
    folder = Path(files) if isinstance(files, str | Path) else None
    found = source_files(files) if isinstance(files, str | Path) else dict(files or {})
    unknown = sorted(set(found) - set(SOURCES))
    must, known = "files must be named after sources", f"The sources are {', '.join(SOURCES)}."
    require(not unknown, "load_public_prompts", must, unknown, known)
    require(
        limit is None or limit >= 1,
        "load_public_prompts",
        "limit must be at least 1",
        limit,
        "Omit it for all prompts.",
    )
    instead = {name: f"put its file at {folder / name}{FILE_KINDS[0]}" if folder else "pass a file" for name in SOURCES}
    rows = pd.concat([load_source(name, found.get(name), instead[name]) for name in SOURCES], ignore_index=True)
    if over_refusal == "unsafe":
        rows = rows[rows["kind"] != SOURCES["xstest"].benign_kind]
    if limit is not None:
        rows = rows.groupby(["kind", "split"], sort=False).head(limit)
    return rows.reset_index(drop=True)


def source_files(folder: str | Path) -> dict[str, str | Path]:
    """The file `<source>.jsonl`, `.parquet` or `.csv` in `folder` for each source that has one."""
    kinds = {name: [kind for kind in FILE_KINDS if (Path(folder) / f"{name}{kind}").is_file()] for name in SOURCES}
    return {name: Path(folder) / f"{name}{own[0]}" for name, own in kinds.items() if own}


def check_over_refusal(function: str, over_refusal: str) -> None:
    """Raise `ValueError` unless `over_refusal` is `unsafe` or `safe_benign`."""
    must = "over_refusal must be 'unsafe' or 'safe_benign'"
    todo = "Both use XSTest's unsafe prompts; the second uses its safe ones as the benign side."
    require(over_refusal in OVER_REFUSAL, function, must, repr(over_refusal), todo)


def load_source(name: str, file: str | Path | None = None, instead: str = "pass a file") -> pd.DataFrame:
    """The prompts of one source, both sides, in its order; columns of `load_public_prompts`, arguments of `read_source`."""
    table = read_source(name, file, instead)
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
    """The id of a public prompt: its category (or benign kind), its source, and its index in the source.

    >>> prompt_id("humanizing", "coconot", 395)
    'humanizing-coconot-395'
    """
    return f"{prefix}-{source}-{source_index}"


def paper_folder(cache_dir: str | Path) -> Path:
    """The folder in `cache_dir` with the prompts of all four data sets, both sides of XSTest, built on first use.

    Each source is read from `paper_files/<source>.jsonl` (or .csv, .parquet) in `cache_dir` if that file exists, else
    from the hub. Another revision or another file builds another folder. Raises `ValueError` as `load_public_prompts`.
    """
    cache_dir = Path(cache_dir)
    own = cache_dir.resolve() / "paper_files"
    files = source_files(own)
    origin = [_sha256(files[name]) if name in files else [each.hub_id, each.revision] for name, each in SOURCES.items()]
    folder = cache_dir / f"paper_prompts_{hashlib.sha256(json.dumps(origin).encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        rows = load_public_prompts("safe_benign", files=own)
        part = folder.with_name(f"{folder.name}.part")  # renamed when complete: a killed build leaves no half folder
        shutil.rmtree(part, ignore_errors=True)
        write_prompt_folder(rows, part).rename(folder)
    return folder


def _sha256(file: str | Path) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
