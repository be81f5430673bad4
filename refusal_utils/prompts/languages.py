"""The same prompts in several languages: those that should be refused, each with a harmless twin."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..checks import require, require_known, require_types
from .categories import BENIGN
from .files import LANGUAGE, check_repeats, read_prompt_file
from .loading import prompts_dir
from .tables import ONE_FILE

_FUNCTION = "load_languages"


def load_languages(source: str | Path = "builtin", languages: Sequence[str] | None = None) -> pd.DataFrame:
    """Parallel prompts: the columns of `load_prompts`, language, and harmful (whether a model should refuse it).

    `source` is `"builtin"` (30 prompts each in English, German, French, Spanish, Chinese and Japanese), a .jsonl, .csv
    or .tsv file, or a folder of them. Every row has a language, a category and a pair_id. The pair_id is that of the
    prompt and of its benign twin in all languages. `languages` selects some and orders them. Rows are sorted by
    language, then harmful prompts first, then pair_id, so that row i of one language translates row i of any other.
    Raises `ValueError` for an unknown language, fewer than two of them, and for a prompt without its counterpart in
    some language.
    """
    require_types(_FUNCTION, (str, Path), source=source)
    path = prompts_dir() / "languages" if source == "builtin" else Path(source)
    files = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else []
    files = [file for file in files if file.suffix.lower() in ONE_FILE]
    forms = ", ".join(ONE_FILE)
    must = f"source must be 'builtin', a file of {forms}, or a folder of them"
    require(bool(files), _FUNCTION, must, repr(str(source)), "Check the spelling.")
    read = {file: read_prompt_file(file) for file in files}
    rows = pd.concat(read.values(), ignore_index=True)
    known = rows[LANGUAGE].fillna("") if LANGUAGE in rows else pd.Series("", rows.index)
    nameless = list(rows["id"][known == ""])
    must, todo = "every prompt must name its language", "Fill the column language."
    require(not nameless, _FUNCTION, must, f"none for {nameless[:1]}", todo)
    check_repeats(_FUNCTION, rows, {file: own["id"] for file, own in read.items()})
    order = list(dict.fromkeys(known)) if languages is None else list(languages)
    for code in order:
        require_known(_FUNCTION, "a language", code, sorted(set(known)))
    must, todo = "there must be at least two languages", "Compare with another one."
    require(len(set(order)) >= 2, _FUNCTION, must, ", ".join(order), todo)
    rows = rows[known.isin(order)].assign(harmful=rows["category"] != BENIGN)
    _require_parallel(rows, order)
    place = rows[LANGUAGE].map(order.index)
    rows = rows.assign(place=place).sort_values(["place", "harmful", "pair_id"], ascending=[True, False, True])
    return rows.drop(columns="place").reset_index(drop=True)


def _require_parallel(rows: pd.DataFrame, languages: Sequence[str]) -> None:
    counts = rows.groupby(["pair_id", "harmful", LANGUAGE]).size().unstack(fill_value=0)
    wanted = pd.MultiIndex.from_product([sorted(set(rows["pair_id"])), [True, False]])
    counts = counts.reindex(wanted, fill_value=0)[list(languages)]
    wrong = counts.stack()[lambda found: found != 1]
    must = "every pair_id must have one prompt to refuse and one benign prompt in every language"
    first = [
        f"{n} {'to refuse' if harmful else 'benign'} of {pair!r} in {code}"
        for (pair, harmful, code), n in wrong[:1].items()
    ]
    require(not first, _FUNCTION, must, ", ".join(first), "Add or remove prompts.")
    repeated = rows["id"][rows["id"].duplicated()].to_list()
    require(not repeated, _FUNCTION, "ids must be unique", f"{repeated[:1]} twice", "Rename one.")
