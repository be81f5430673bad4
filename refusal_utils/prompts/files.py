"""Prompt files: the one parser of `.jsonl`, `.csv` and `.txt`, and the split of prompts that have none."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ..checks import invalid, require
from .categories import ALL_CATEGORIES, BENIGN

FIELDS = ("id", "category", "text", "split", "pair_id")
SPLITS = ("train", "eval")
BENIGN_KINDS = ("ordinary", "look_alike", "twin")
ONE_FILE = (".jsonl", ".csv")  # formats whose prompts can name their category
PROMPT_FILES = (*ONE_FILE, ".txt")
MIN_TRAIN = 32


def read_prompt_file(path: str | Path, category: str | None = None) -> pd.DataFrame:
    """The prompts of a file, with the columns of `load_prompts`.

    `.jsonl` has one JSON object per line, `.csv` a header, `.txt` one prompt per line. The first two hold the prompt as
    `text` or `prompt`, and optionally id, category, split and pair_id. `category` is for prompts that name none. Missing
    ids are made from file name and line number; missing splits follow `split_in_order`. Raises `ValueError` that names
    the file and the line.
    """
    path = Path(path)
    readable = path.is_file() and path.suffix in PROMPT_FILES
    require(readable, "read_prompt_file", "the path must be a .jsonl, .csv or .txt file", path, "Check the path.")
    rows = [_row(path, number, fields, category) for number, fields in _numbered(path)]
    require(bool(rows), "read_prompt_file", "the file must hold prompts", f"none in {path}", "Add some.")
    frame = pd.DataFrame(rows, columns=[*FIELDS])
    frame["split"] = frame["split"].where(frame["split"] != "", pd.Series(split_in_order(frame["category"])))
    return frame.assign(kind=frame["category"].where(frame["category"] != BENIGN, frame["id"].str.split("-").str[0]))


def _numbered(path: Path) -> Iterator[tuple[int, dict]]:
    """(line number, fields) of every prompt."""
    text = _decoded(path)
    if path.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(text, newline=""))
        yield from ((rows.line_num, fields) for fields in rows)
        return
    for number, line in enumerate(text.split("\n"), 1):  # not `splitlines`: a prompt may hold other line separators
        if line.strip():
            yield number, {"text": line.strip()} if path.suffix == ".txt" else _json_object(path, number, line)


def _decoded(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = 1 + error.object[: error.start].count(b"\n")
        raise _fault(path, number, f"the byte {error.object[error.start]:#x}, which is not UTF-8,") from error


def _json_object(path: Path, number: int, line: str) -> dict:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise _fault(path, number, f"invalid JSON ({error.msg})") from error
    if not isinstance(fields, dict):
        raise _fault(path, number, "JSON that is not an object")
    return fields


def _row(path: Path, number: int, fields: dict, category: str | None) -> dict[str, str]:
    row = {name: fields.get(name) or "" for name in FIELDS}
    row["text"] = row["text"] or fields.get("prompt")
    row["category"] = row["category"] or category
    if not isinstance(row["text"], str) or not row["text"].strip():
        raise _fault(path, number, "no text or prompt")
    if row["category"] not in ALL_CATEGORIES:
        raise _fault(path, number, f"the category {row['category']!r}, not one of {', '.join(ALL_CATEGORIES)}")
    if row["split"] not in ("", *SPLITS):
        raise _fault(path, number, f"the split {row['split']!r}, not train or eval")
    row["id"] = str(row["id"] or f"{row['category']}-{path.stem}-{number}")
    if row["category"] == BENIGN and row["id"].split("-")[0] not in BENIGN_KINDS:
        row["id"] = f"ordinary-{row['id']}"
    return row | {"pair_id": str(row["pair_id"])}


def _fault(path: Path, number: int, reason: str) -> ValueError:
    must = "every prompt must have a text and a known category"
    return invalid("read_prompt_file", must, f"{reason} at {path}, line {number}", "Correct or remove that line.")


def split_in_order(categories: Iterable[str]) -> list[str]:
    """`train` or `eval` for prompts of these categories: the first max(32, 60 %) of every category are `train`.

    >>> [split_in_order(["advice"] * n).count("train") for n in (20, 40, 100)]
    [20, 32, 60]
    """
    by_category = pd.Series(list(categories)).groupby(list(categories))
    n_train = np.maximum(MIN_TRAIN, by_category.transform("size") * 3 // 5)
    return np.where(by_category.cumcount() < n_train, "train", "eval").tolist()
