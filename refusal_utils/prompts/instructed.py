"""Refusals by instruction: harmless questions that a system prompt tells the model to turn down, each with its twin."""

from pathlib import Path

import pandas as pd

from ..checks import require, require_types
from .files import SPLITS, text_value
from .loading import prompts_dir
from .tables import ONE_FILE, fault, numbered_rows

_TEXTS = ("id", "pair_id", "system", "text", "split")
_IS_ON = {"true": True, "false": False}


def load_instructed(source: str | Path = "builtin", split: str | None = None) -> pd.DataFrame:
    """Questions off and on the topic of a system prompt, in pairs: columns id, pair_id, system, text, split, on_topic.

    `source` is `"builtin"` (160 pairs: 16 system prompts, half of them roles to play, with ten questions each; every
    question is on topic in one pair and off topic in another) or a .jsonl, .csv or .tsv file with these columns.
    `split` (`"train"` or `"eval"`, which share no system prompt) selects some. Raises `ValueError` for another source
    or split, for a row without one of its values, and for a pair that has not one question on topic and one off it.
    """
    require_types("load_instructed", (str, Path), source=source)
    path = prompts_dir() / "instructed.jsonl" if source == "builtin" else Path(source)
    is_file = path.is_file() and path.suffix.lower() in ONE_FILE
    must = f"source must be 'builtin' or a file of {', '.join(ONE_FILE)}"
    require(is_file, "load_instructed", must, repr(str(source)), "Check the path.")
    require(split in (None, *SPLITS), "load_instructed", "split must be train or eval", repr(split), "Leave it out.")
    rows = []
    for number, fields in numbered_rows(path):
        row = {name: text_value(path, number, name, fields.get(name)) for name in _TEXTS}
        on_topic = _IS_ON.get(str(fields.get("on_topic")).strip().lower())
        if on_topic is None or not all(row.values()) or row["split"] not in SPLITS:
            raise fault(path, number, f"no {', '.join(_TEXTS)} and on_topic (true or false)")
        rows.append({**row, "on_topic": on_topic})
    found = pd.DataFrame(rows, columns=[*_TEXTS, "on_topic"])
    sides = found.groupby("pair_id")["on_topic"].agg(["size", "sum"])
    wrong = list(sides.index[(sides["size"] != 2) | (sides["sum"] != 1)])
    must, todo = "every pair must have one question on topic and one off it", "Add or remove rows."
    require(not wrong and len(found) > 0, "load_instructed", must, f"others in {wrong[:1] or path}", todo)
    return found[found["split"].eq(split) | (split is None)].reset_index(drop=True)
