"""Prompts from files of one's own, and the folder of prompts that `load_prompts` reads."""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from .categories import BENIGN, CATEGORY_IDS
from .prompt_sets import BENIGN_KINDS, FIELDS, SPLITS, prompt_kind

TEXT_FIELDS = ("text", "prompt")
PROMPT_FILES = (".jsonl", ".csv", ".txt")
ONE_FILE = (".jsonl", ".csv")  # whose prompts can name their category, which lines of text cannot
MIN_TRAIN = 32
ORIGIN = ("source", "source_index", "revision")  # where a public prompt comes from


def read_prompt_file(path: str | Path, category: str | None = None) -> pd.DataFrame:
    """The prompts of a file of your own, with the columns of `load_prompts`.

    `.jsonl`: one JSON object a line; `.csv`: a header, then rows; `.txt`: one prompt a line. The first two hold `text` or
    `prompt`, and may hold id, category, split and pair_id. `category` is that of prompts that name none; missing ids are
    made of file name and line, missing splits follow `split_in_order`. Raises `ValueError` naming file and line.
    """
    path = Path(path)
    if not path.is_file() or path.suffix not in _READERS:
        raise ValueError(
            f"read_prompt_file: the path must be that of a .jsonl, .csv or .txt file; got {path}. Give one of these."
        )
    rows = [_row(path, number, fields, category) for number, fields in _READERS[path.suffix](path, _text_of(path))]
    if not rows:
        raise ValueError(f"read_prompt_file: the file must hold prompts; got none in {path}. Add some.")
    frame = pd.DataFrame(rows, columns=[*FIELDS])
    frame["split"] = frame["split"].where(frame["split"] != "", pd.Series(split_in_order(frame["category"])))
    return frame.assign(kind=list(map(prompt_kind, frame["id"], frame["category"])))


def split_in_order(categories: Iterable[str]) -> list[str]:
    """For prompts of these categories `train` or `eval`: the first max(32, 60 %) of every category are `train`.

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
    """The folder, with `rows` (columns of `load_prompts`) in it as `<category>.jsonl` and `benign.jsonl`.

    Public prompts keep source, source_index and revision, and `sources.json` records how many of each source there are,
    and the SHA-256 of their texts. Raises `ValueError` for a folder that is not empty, an unknown category, and an id
    that occurs twice.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"write_prompt_folder: the folder must be new or empty; got {folder}. Choose another.")
    unknown = sorted(set(rows["category"]) - {*CATEGORY_IDS, BENIGN})
    repeated = list(rows["id"][rows["id"].duplicated()])
    if unknown or repeated:
        what = f"the category {unknown[0]!r}" if unknown else f"the id {repeated[0]!r} twice"
        raise ValueError(
            f"write_prompt_folder: categories must be known and ids unique; got {what}. Rename it, or leave it out."
        )
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


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + error.object[: error.start].count(b"\n")
        raise ValueError(
            f"read_prompt_file: the file must be UTF-8; got the byte {error.object[error.start]:#x} at {path}, "
            f"line {line}. Save it as UTF-8."
        ) from error


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, dict]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            _reject(path, number, f"invalid JSON ({error.msg})")
        if not isinstance(fields, dict):
            _reject(path, number, "JSON that is not an object")
        yield number, fields


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict]]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if not set(TEXT_FIELDS) & set(rows.fieldnames or ()):
        _reject(path, 1, "a header without a column text or prompt")
    for fields in rows:
        yield rows.line_num, fields


def _plain_lines(path: Path, text: str) -> Iterator[tuple[int, dict]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, {"text": line.strip()}


_READERS = dict(zip(PROMPT_FILES, (_json_lines, _csv_rows, _plain_lines), strict=True))


def _row(path: Path, number: int, fields: dict, category: str | None) -> dict[str, str]:
    text = next((fields[name] for name in TEXT_FIELDS if fields.get(name)), None)
    if not isinstance(text, str) or not text.strip():
        _reject(path, number, "no text or prompt")
    own = fields.get("category") or category
    if own not in (*CATEGORY_IDS, BENIGN):
        _reject(path, number, f"the category {own!r}, not one of {', '.join((*CATEGORY_IDS, BENIGN))}")
    split = fields.get("split") or ""
    if split not in ("", *SPLITS):
        _reject(path, number, f"the split {split!r}, not train or eval")
    id = str(fields.get("id") or f"{own}-{path.stem}-{number}")
    if own == BENIGN and prompt_kind(id, own) not in BENIGN_KINDS:
        id = f"ordinary-{id}"
    return dict(zip(FIELDS, (id, own, text, split, fields.get("pair_id") or ""), strict=True))


def _reject(path: Path, number: int, reason: str) -> NoReturn:
    raise ValueError(
        f"read_prompt_file: every prompt must have a text and a known category; got {reason} at {path}, line {number}. "
        "Mend or remove that line, or pass the category."
    )
