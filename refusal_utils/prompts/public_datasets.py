"""The paper's four public data sets as a folder of prompts that `load_prompts` reads."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from .categories import BENIGN
from .files import FIELDS, split_in_order
from .public_sources import SOURCES, own_file, read_source


def paper_folder(cache_dir: str | Path) -> Path:
    """The folder in `cache_dir` with the prompts of all four data sets, both sides of XSTest, built on first use.

    Each source is read from `paper_files/<source>.jsonl` (or .parquet, .csv) in `cache_dir` if that file exists, else
    from the hub. Another revision or another file builds another folder. Raises `ValueError` as `read_source`.
    """
    files = Path(cache_dir).resolve() / "paper_files"
    own = {name: own_file(name, files) for name in SOURCES}
    origin = [
        _sha256(file.read_bytes()) if (file := own[name]) else [each.hub_id, each.revision]
        for name, each in SOURCES.items()
    ]
    folder = Path(cache_dir) / f"paper_prompts_{_sha256(json.dumps(origin).encode())[:12]}"
    if not folder.is_dir():
        rows = pd.concat([load_source(name, files) for name in SOURCES])
        part = folder.with_name(f"{folder.name}.part")  # renamed when complete: a killed build leaves no half folder
        shutil.rmtree(part, ignore_errors=True)
        _write(rows, part)
        part.rename(folder)
    return folder


def load_source(name: str, folder: Path) -> pd.DataFrame:
    """The prompts of one source, both sides, in its order: `FIELDS`, source, source_index and revision.

    CoCoNot has its own splits (its test split is `eval` here); the others are divided by `split_in_order`. The benign
    side is WildGuardMix's harmless prompts and, as look-alikes, XSTest's safe ones. Arguments as in `read_source`.
    """
    source, file = SOURCES[name], own_file(name, folder)
    rows = read_source(name, folder)
    rows["category"] = rows["label"].map(source.categories)
    rows = rows[rows["category"].notna()].reset_index(drop=True)
    kinds = rows["category"].replace(BENIGN, source.benign_kind)
    return rows.assign(
        id=kinds + f"-{name}-" + rows["source_index"].astype(str),
        split=source.into or split_in_order(rows["category"]),
        pair_id="",
        source=name,
        revision=f"file {file.name}" if file else source.revision,
    )[[*FIELDS, "source", "source_index", "revision"]]


def _write(rows: pd.DataFrame, folder: Path) -> None:
    """Write a `<category>.jsonl` each, and `sources.json` with the number and SHA-256 of each source's texts."""
    folder.mkdir(parents=True)
    for category, own in rows.groupby("category"):
        own.to_json(folder / f"{category}.jsonl", orient="records", lines=True)
    record = {str(source): _record(own) for source, own in rows.groupby("source", sort=False)}
    (folder / "sources.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _record(own: pd.DataFrame) -> dict[str, Any]:
    digest = _sha256("\n".join(own["text"]).encode())
    return {"revision": own["revision"].iloc[0], "n_prompts": len(own), "sha256": digest}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
