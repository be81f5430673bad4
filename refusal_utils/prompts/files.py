"""Prompt files: the one parser of `.jsonl`, `.csv` and `.txt`, and folders with a file for every category."""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from ..checks import invalid, require
from .categories import ALL_CATEGORIES, BENIGN

FIELDS = ("id", "category", "text", "split", "pair_id")
SPLITS = ("train", "eval")
BENIGN_KINDS = ("ordinary", "look_alike", "twin")
PROMPT_FILES = (".jsonl", ".csv", ".txt")
ONE_FILE = (".jsonl", ".csv")  # formats whose prompts can name their category
ORIGIN = ("source", "source_index", "revision")  # where a public prompt comes from
MIN_TRAIN = 32
_TEXT_FIELDS = ("text", "prompt")


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
    lines = _READERS[path.suffix](path, _decode(path))
    rows = [_row(path, number, fields, category) for number, fields in lines]
    require(bool(rows), "read_prompt_file", "the file must hold prompts", f"none in {path}", "Add some.")
    frame = pd.DataFrame(rows, columns=[*FIELDS])
    frame["split"] = frame["split"].where(frame["split"] != "", pd.Series(split_in_order(frame["category"])))
    return frame.assign(kind=list(map(prompt_kind, frame["id"], frame["category"])))


def _decode(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + error.object[: error.start].count(b"\n")
        got = f"the byte {error.object[error.start]:#x} at {path}, line {line}"
        raise invalid("read_prompt_file", "the file must be UTF-8", got, "Save it as UTF-8.") from error


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, dict]]:
    for number, line in _numbered_lines(text):
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise _fault(path, number, f"invalid JSON ({error.msg})") from error
        if not isinstance(fields, dict):
            raise _fault(path, number, "JSON that is not an object")
        yield number, fields


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict]]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if not set(_TEXT_FIELDS) & set(rows.fieldnames or ()):
        raise _fault(path, 1, "a header without a column text or prompt")
    for fields in rows:
        yield rows.line_num, fields


def _plain_lines(path: Path, text: str) -> Iterator[tuple[int, dict]]:
    return ((number, {"text": line.strip()}) for number, line in _numbered_lines(text))


def _numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    # Not `splitlines`: a prompt may hold any other line separator.
    return ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


_READERS = dict(zip(PROMPT_FILES, (_json_lines, _csv_rows, _plain_lines), strict=True))


def _row(path: Path, number: int, fields: dict, category: str | None) -> dict[str, str]:
    text = next((fields[name] for name in _TEXT_FIELDS if fields.get(name)), None)
    if not isinstance(text, str) or not text.strip():
        raise _fault(path, number, "no text or prompt")
    wrong = [name for name in FIELDS if not isinstance(fields.get(name) or "", str | int)]
    if wrong:
        raise _fault(path, number, f"no text in the field {wrong[0]}")
    own = fields.get("category") or category
    if own not in ALL_CATEGORIES:
        raise _fault(path, number, f"the category {own!r}, not one of {', '.join(ALL_CATEGORIES)}")
    split = fields.get("split") or ""
    if split not in ("", *SPLITS):
        raise _fault(path, number, f"the split {split!r}, not train or eval")
    id = str(fields.get("id") or f"{own}-{path.stem}-{number}")
    if own == BENIGN and prompt_kind(id, own) not in BENIGN_KINDS:
        id = f"ordinary-{id}"
    return dict(zip(FIELDS, (id, own, text, split, str(fields.get("pair_id") or "")), strict=True))


def _fault(path: Path, number: int, reason: str) -> ValueError:
    must = "every prompt must have a text and a known category"
    return invalid("read_prompt_file", must, f"{reason} at {path}, line {number}", "Correct or remove that line.")


def prompt_kind(id: str, category: str) -> str:
    """The category of a prompt; for a benign prompt the beginning of its id: ordinary, look_alike or twin.

    >>> prompt_kind("twin-advice-0001", "benign"), prompt_kind("advice-0001", "advice")
    ('twin', 'advice')
    """
    return id.split("-")[0] if category == BENIGN else category


def split_in_order(categories: Iterable[str]) -> list[str]:
    """`train` or `eval` for prompts of these categories: the first max(32, 60 %) of every category are `train`.

    >>> [split_in_order(["advice"] * n).count("train") for n in (20, 40, 100)]
    [20, 32, 60]
    """
    categories = list(categories)
    sizes, seen = Counter(categories), Counter[str]()
    splits = []
    for category in categories:
        splits.append("train" if seen[category] < max(MIN_TRAIN, sizes[category] * 3 // 5) else "eval")
        seen[category] += 1
    return splits


def write_prompt_folder(rows: pd.DataFrame, folder: str | Path) -> Path:
    """The folder to which `rows` (columns of `load_prompts`) were written, as `<category>.jsonl` and `benign.jsonl`.

    Public prompts keep the columns of `ORIGIN`, and `sources.json` records the number of prompts of each source and the
    SHA-256 of their texts. Raises `ValueError` for a folder that is not empty, an unknown category or a repeated id.
    """
    folder, function = Path(folder), "write_prompt_folder"
    is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    require(is_free, function, "the folder must be new or empty", folder, "Choose another.")
    unknown = [f"the category {name!r}" for name in sorted(set(rows["category"]) - set(ALL_CATEGORIES))]
    faults = [*unknown, *(f"the id {id!r} twice" for id in rows["id"][rows["id"].duplicated()])]
    must = "categories must be known and ids unique"
    require(not faults, function, must, "".join(faults[:1]), "Rename it, or leave it out.")
    folder.mkdir(parents=True, exist_ok=True)
    origin = [name for name in ORIGIN if name in rows]
    for category, own in rows.groupby("category"):
        lines = "".join(json.dumps(row) + "\n" for row in own[[*FIELDS, *origin]].to_dict("records"))
        (folder / f"{category}.jsonl").write_text(lines, encoding="utf-8")
    if origin:
        record = {str(source): _record(own) for source, own in rows.groupby("source", sort=False)}
        (folder / "sources.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return folder


def _record(own: pd.DataFrame) -> dict[str, Any]:
    texts = "\n".join(own["text"])
    revision = ", ".join(sorted(set(own["revision"])))
    return {"revision": revision, "n_prompts": len(own), "sha256": hashlib.sha256(texts.encode()).hexdigest()}
