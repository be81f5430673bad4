"""Texts to append to prompts: neutral ones that come with the suite, or those of a file."""

from pathlib import Path

import pandas as pd

from ..checks import require, require_types
from .files import text_value
from .loading import prompts_dir
from .tables import ONE_FILE, fault, numbered_rows

COLUMNS = {"id": "suffix_id", "kind": "kind", "text": "suffix"}


def load_suffixes(source: str | Path = "builtin") -> pd.DataFrame:
    """Suffixes: columns suffix_id, kind and suffix.

    `source` is `"builtin"` (eight each of politeness, requests about the format, and nonsense words) or a .jsonl, .csv
    or .tsv file with the columns text and optionally id and kind. Nothing here searches for suffixes. Raises
    `ValueError` for another source, for a row without text or with a value that is no text, and for a repeated id.
    """
    require_types("load_suffixes", (str, Path), source=source)
    path = prompts_dir() / "suffixes.jsonl" if source == "builtin" else Path(source)
    must = f"source must be 'builtin' or a file of {', '.join(ONE_FILE)}"
    is_file = path.is_file() and path.suffix.lower() in ONE_FILE
    require(is_file, "load_suffixes", must, repr(str(source)), "Check the path.")
    rows = []
    for number, fields in numbered_rows(path):
        row = {name: text_value(path, number, name, fields.get(name)) for name in COLUMNS}
        if not row["text"]:
            raise fault(path, number, "no text")
        rows.append({**row, "id": row["id"] or f"{path.stem}-{number}"})
    found = pd.DataFrame(rows, columns=[*COLUMNS]).rename(columns=COLUMNS)
    require(len(found) > 0, "load_suffixes", "the file must hold suffixes", f"none in {path}", "Add some.")
    repeated = list(found["suffix_id"][found["suffix_id"].duplicated()])
    require(not repeated, "load_suffixes", "ids must be unique", f"{repeated[:1]} twice in {path}", "Rename one.")
    return found


def with_suffixes(prompts: pd.DataFrame, suffixes: pd.DataFrame) -> pd.DataFrame:
    """Every prompt (columns id and text) with every suffix, a row each; the columns of both."""
    return prompts.merge(suffixes.rename(columns={"kind": "suffix_kind"}), how="cross")
