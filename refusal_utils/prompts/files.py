"""Prompt files: their prompts in the columns of `load_prompts`, and the split of prompts that have none."""

import re
import string
import unicodedata
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..checks import invalid, require
from .categories import ALL_CATEGORIES, BENIGN
from .tables import PROMPT_FILES, TEXT_COLUMNS, fault, numbered_rows
from .text_features import folded

FIELDS = ("id", "category", "text", "split", "pair_id")
LANGUAGE = "language"  # a column of files that say in which language a prompt is
SPLITS = ("train", "eval")
BENIGN_KINDS = ("ordinary", "look_alike", "twin")
MIN_TRAIN = 32
_LANGUAGE_CODE = re.compile(r"([a-z]{2,3}(-[a-z0-9]{2,8})*)?")


def read_prompt_file(path: str | Path, category: str | None = None, *, repeats: bool = False) -> pd.DataFrame:
    """The prompts of a file, with the columns of `load_prompts`.

    `.jsonl` has one JSON object per line; `.csv` and `.tsv` a header, and commas, semicolons, tabs or bars between
    cells; `.txt` one prompt per line. All but the last hold the prompt as `text` or `prompt`, and optionally id,
    category, split, pair_id and language. `category` is for prompts that name none. Blanks around a value do not count.
    Missing ids are made from file name and line number; missing splits follow `split_in_order`, and a prompt that is
    there again has the split of the first one. The column language (a code such as de or pt-br) is there if a row has
    one. Raises `ValueError` that names the file and the line, also (unless `repeats`) for the same prompt in a category
    and among the benign ones, or in both splits.
    """
    path = Path(path)
    readable = path.is_file() and path.suffix.lower() in PROMPT_FILES
    kinds = ", ".join(PROMPT_FILES)
    require(readable, "read_prompt_file", f"the path must be a file of {kinds}", path, "Check the path.")
    rows: list[dict[str, Any]] = []
    lines: dict[str, int] = {}
    for number, fields in numbered_rows(path):
        row = _row(path, number, fields, category)
        if row["id"] in lines:
            raise fault(path, number, f"the id {row['id']!r} of line {lines[row['id']]} again")
        lines[row["id"]] = number
        rows.append(row)
    require(bool(rows), "read_prompt_file", "the file must hold prompts", f"none in {path}", "Add some.")
    frame = pd.DataFrame(rows, columns=[*FIELDS, *([LANGUAGE] if any(row[LANGUAGE] for row in rows) else [])])
    in_order, key = pd.Series(split_in_order(frame["category"])), _key(frame)
    splits = [frame["split"].replace("", None), frame["split"].replace("", None).groupby(key).transform("first")]
    frame["split"] = splits[0].fillna(splits[1]).fillna(in_order.groupby(key).transform("first"))
    if not repeats:
        check_repeats("read_prompt_file", frame, {path: frame["id"]})
    return frame.assign(kind=frame["category"].where(frame["category"] != BENIGN, frame["id"].str.split("-").str[0]))


def _row(path: Path, number: int, fields: dict, category: str | None) -> dict[str, Any]:
    row: dict[str, Any] = {name: text_value(path, number, name, fields.get(name)) for name in (*FIELDS, LANGUAGE)}
    other = text_value(path, number, "prompt", fields.get("prompt"))
    if row["text"] and other not in ("", row["text"]):
        raise fault(path, number, "a text and another prompt", "Keep one of the two.")
    row["text"] = row["text"] or other
    row["category"] = row["category"] or category
    if not folded(row["text"]):  # blanks and invisible characters alone
        others = ", ".join(map(repr, fields)) if not {*TEXT_COLUMNS} & {*fields} else ""
        raise fault(path, number, f"no text or prompt{f', only {others},' if others else ''}")
    if row["category"] not in ALL_CATEGORIES:
        raise fault(path, number, f"the category {row['category']!r}, not one of {', '.join(ALL_CATEGORIES)}")
    if row["split"] not in ("", *SPLITS):
        raise fault(path, number, f"the split {row['split']!r}, not train or eval")
    row[LANGUAGE] = row[LANGUAGE].lower().replace("_", "-")
    if not _LANGUAGE_CODE.fullmatch(row[LANGUAGE]):
        raise fault(path, number, f"the language {row[LANGUAGE]!r}, not a code such as de or pt-br")
    row["id"] = row["id"] or f"{row['category']}-{path.stem}-{number}"
    if row["category"] == BENIGN and row["id"].split("-")[0] not in BENIGN_KINDS:
        row["id"] = f"ordinary-{row['id']}"
    return row


def text_value(path: Path, number: int, name: str, value: object) -> str:
    """The value of a field as text, without blanks around it. Ids may be written as whole numbers."""
    is_number = isinstance(value, int) and not isinstance(value, bool) and name in ("id", "pair_id")
    value = "" if value is None else str(value) if is_number else value
    if not isinstance(value, str):
        raise fault(path, number, f"the {name} {value!r:.60}, which is not text,")
    value = value.strip("\ufeff" + string.whitespace).strip()
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise fault(path, number, f"a character in {name} that is no text (NUL, or half of a surrogate pair)")
    if name not in TEXT_COLUMNS and not value.isprintable():
        raise fault(path, number, f"the {name} {value!r:.60}, which has a line break or control character,")
    return value if name in TEXT_COLUMNS else unicodedata.normalize("NFC", value)


def check_repeats(function: str, rows: pd.DataFrame, files: Mapping[Path, Iterable[str]]) -> None:
    """Raise `ValueError` for a prompt that is both refused and benign, or both train and eval, in any spelling.

    Directions would be told to separate it from itself, or be tested on what they were estimated from. `files` gives
    the ids of each file; the error names files and lines. The same text in two languages counts as two prompts.
    """
    key, benign = _key(rows), rows["category"] == BENIGN
    n_sides, n_splits = (each.groupby(key).transform("nunique") for each in (benign, rows["split"]))
    if not (wrong := (n_sides > 1) | (n_splits > 1)).any():
        return
    own = rows[key == key[wrong.idxmax()]]
    other = own[(own["category"] == BENIGN) != (own["category"].iloc[0] == BENIGN)]
    other = own[own["split"] != own["split"].iloc[0]] if other.empty else other
    found = [
        f"{row.category}, {row.split}, {_place(row.id, files)}"
        for row in (*own[:1].itertuples(), *other[:1].itertuples())
    ]
    must = "a prompt must be in one split, and in a category or benign"
    got = f"{own['text'].iloc[0][:40]!r} twice ({'; '.join(found)})"
    raise invalid(function, must, got, "Remove one of the two lines.")


def _key(rows: pd.DataFrame) -> pd.Series:
    """What two writings of the same prompt have in common."""
    language = rows[LANGUAGE].fillna("") if LANGUAGE in rows else ""
    return rows["text"].map(folded) + "\n" + language


def _place(id: str, files: Mapping[Path, Iterable[str]]) -> str:
    """File and line of a prompt."""
    path, at = next((path, list(ids).index(id)) for path, ids in files.items() if id in set(ids))
    number, _ = next(islice(numbered_rows(path), at, None))
    return f"{path}, line {number}"


def split_in_order(categories: Iterable[str]) -> list[str]:
    """`train` or `eval` for prompts of these categories: the first max(32, 60 %) of every category are `train`.

    >>> [split_in_order(["advice"] * n).count("train") for n in (20, 40, 100)]
    [20, 32, 60]
    """
    by_category = pd.Series(list(categories)).groupby(list(categories))
    n_train = np.maximum(MIN_TRAIN, by_category.transform("size") * 3 // 5)
    return np.where(by_category.cumcount() < n_train, "train", "eval").tolist()
