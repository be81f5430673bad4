"""The paper's four public data sets as rows like those of `load_prompts`, and as a folder of prompts."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from .categories import BENIGN, CATEGORY_IDS
from .prompt_files import ONE_FILE, ORIGIN, PROMPT_FILES, read_prompt_file, split_in_order, write_prompt_folder
from .prompt_sets import FIELDS, prompt_kind
from .public_sources import FILE_KINDS, SOURCES, read_source

OVER_REFUSAL = ("unsafe", "safe_benign")
_NAMES = (*CATEGORY_IDS, BENIGN)
COLUMNS = [*FIELDS, "kind", *ORIGIN]


def load_public_prompts(
    over_refusal: str = "unsafe",
    limit: int | None = None,
    files: Mapping[str, str | Path] | str | Path | None = None,
) -> pd.DataFrame:
    """The prompts of all four data sets: the columns of `load_prompts`, and source, source_index and revision.

    Split: CoCoNot's own (train, and test as eval); of the others the first max(32, 60 %) prompts of a category, in
    source order, are train. The benign side is WildGuardMix' harmless prompts. The non-compliant side of over-refusal is
    XSTest's unsafe prompts; `over_refusal="safe_benign"`, an older recipe, adds XSTest's safe prompts as its benign side
    (kind `look_alike`), `"unsafe"` leaves them out. `limit`: at most so many of a category in each split, the first ones.
    `files`: by name of the source, a file to read instead of the hub; or the folder where such files lie, each under the
    name of its source (`source_files`). Raises `ValueError` as `read_source`.
    """
    check_over_refusal("load_public_prompts", over_refusal)
    folder = Path(files) if isinstance(files, str | Path) else None
    found = source_files(files) if isinstance(files, str | Path) else dict(files or {})
    unknown = sorted(set(found) - set(SOURCES))
    if unknown or (limit is not None and limit < 1):
        raise ValueError(
            f"load_public_prompts: files must be named after sources, the limit at least 1; got {unknown or limit}. "
            f"The sources are {', '.join(SOURCES)}."
        )
    instead = {name: f"put its file at {folder / name}{FILE_KINDS[0]}" if folder else "pass a file" for name in SOURCES}
    rows = pd.concat([load_source(name, found.get(name), instead[name]) for name in SOURCES], ignore_index=True)
    if over_refusal == "unsafe":
        rows = rows[rows["kind"] != SOURCES["xstest"].benign_kind]
    if limit is not None:
        rows = rows.groupby(["kind", "split"], sort=False).head(limit)
    return rows.reset_index(drop=True)


def source_files(folder: str | Path) -> dict[str, str | Path]:
    """By name of the source, the file `<source>.jsonl`, `.parquet` or `.csv` in `folder`, of those sources that have one."""
    kinds = {name: [kind for kind in FILE_KINDS if (Path(folder) / f"{name}{kind}").is_file()] for name in SOURCES}
    return {name: Path(folder) / f"{name}{own[0]}" for name, own in kinds.items() if own}


def check_over_refusal(function: str, over_refusal: str) -> None:
    """Raises `ValueError` for a reading of over-refusal that is neither `unsafe` nor `safe_benign`."""
    if over_refusal not in OVER_REFUSAL:
        raise ValueError(
            f"{function}: over_refusal must be 'unsafe' or 'safe_benign'; got {over_refusal!r}. "
            "Both take XSTest's unsafe prompts; the second its safe ones as benign side."
        )


def load_source(name: str, file: str | Path | None = None, instead: str = "pass a file") -> pd.DataFrame:
    """The prompts of one source in its order, both sides, with the columns of `load_public_prompts`; as `read_source`."""
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
    """The id of a public prompt: its category (or benign kind), source, and place there.

    >>> prompt_id("humanizing", "coconot", 395)
    'humanizing-coconot-395'
    """
    return f"{prefix}-{source}-{source_index}"


def prompts_folder(prompts: str, cache_dir: str | Path) -> Path | None:
    """Where prompts lie that are asked for by name: None for `builtin`, for `paper` a folder of the public data sets.

    The latter holds both sides of XSTest and is built in `cache_dir` on first use, of the files
    `paper_files/<source>.jsonl` (or .csv, .parquet) there, and of the hub for sources without one. A folder with a
    `<category>.jsonl` for each category is given back; one with `<category>.csv` or `<category>.txt` (a prompt a line)
    among them, or one .jsonl or .csv file of prompts that name their category, becomes a folder in `cache_dir`. Raises
    `ValueError` for anything else, and as `load_public_prompts` and `read_prompt_file`.
    """
    if prompts == "builtin":
        return None
    if prompts == "paper":
        return _paper_folder(Path(cache_dir))
    path = Path(prompts)
    if path.is_file() and path.suffix in ONE_FILE:
        return _folder_of_files({path: None}, path, Path(cache_dir))
    if not path.is_dir():
        raise ValueError(
            f"prompts_folder: prompts must be 'builtin', 'paper', a folder with a file for every category, or a "
            f"{' or '.join(ONE_FILE)} file; got {prompts!r}. Check the spelling."
        )
    files = {file: file.stem for file in sorted(path.iterdir()) if file.stem in _NAMES and file.suffix in PROMPT_FILES}
    if {file.suffix for file in files} <= {".jsonl"}:
        return path
    return _folder_of_files(files, path, Path(cache_dir))


def _paper_folder(cache_dir: Path) -> Path:
    own = cache_dir.resolve() / "paper_files"
    files = source_files(own)
    origin = [_sha256(files[name]) if name in files else [each.hub_id, each.revision] for name, each in SOURCES.items()]
    folder = cache_dir / f"paper_prompts_{hashlib.sha256(json.dumps(origin).encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        _write_whole(load_public_prompts("safe_benign", files=own), folder)
    return folder


def _folder_of_files(files: Mapping[Path, str | None], source: Path, cache_dir: Path) -> Path:
    """A folder of the prompts in `files`, each with the category of those that name none."""
    state = [(file.name, _sha256(file)) for file in files]
    folder = cache_dir / f"prompts_{source.stem}_{hashlib.sha256(json.dumps(state).encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        rows = pd.concat([read_prompt_file(file, category) for file, category in files.items()], ignore_index=True)
        missing = [name for name in _NAMES if name not in set(rows["category"])]
        if missing:
            raise ValueError(
                f"prompts_folder: there must be prompts of every category and benign ones; got no "
                f"{', '.join(missing)} in {source}. Add some, each with its category."
            )
        _write_whole(rows, folder)
    return folder


def _write_whole(rows: pd.DataFrame, folder: Path) -> None:
    """The prompts in `folder`, all or none: a build that was killed leaves no half folder."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    write_prompt_folder(rows, part).rename(folder)


def _sha256(file: str | Path) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
