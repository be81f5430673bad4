"""What the explorer shows of a recorded sweep: rates, wording and some responses, as one script per model.

Browsers do not let a page opened from disk read JSON files, but let it run scripts, so the record is a call.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..judging import STYLES
from ..prompts.categories import ALL_CATEGORIES, BENIGN
from ..steering.responses import judged
from ..tradeoff import Sweep, Wording

RECORD = "explorer.js"
N_PROMPTS = 12  # of a kind whose responses are shown; the rates are over all prompts
OUTCOMES = ("refused", "answered", "broken", "not judged")
_RATES = ("RR", "RR low", "RR high", "ORR", "ORR low", "ORR high", "degenerate")


def write_record(
    folder: Path, swept: Sweep, key: str, *, show_prompts: bool = False, n_prompts: int = N_PROMPTS
) -> Path:
    """The path of `explorer.js` in a model's folder: a call of `recorded` with the model's key and its sweep."""
    record = sweep_record(swept, show_prompts=show_prompts, n_prompts=n_prompts)
    path = folder / RECORD
    path.write_text(f"recorded({script_json(key)}, {script_json(record)});\n", encoding="utf-8")
    return path


def script_json(value: Any) -> str:
    """`value` as JSON that is safe in a script: no tag can end it, and invisible characters are spelled out.

    >>> script_json({"</script>": "\\u202e"})
    '{"\\\\u003c/script\\\\u003e":"\\\\u202e"}'
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def sweep_record(swept: Sweep, *, show_prompts: bool = False, n_prompts: int = N_PROMPTS) -> dict[str, Any]:
    """The strengths, rates, wording and responses of every direction of a sweep, as plain lists.

    Benign prompts alone have their texts and responses in the record, unless `show_prompts`.
    """
    known = Sweep(swept.rows[swept.rows["gaps"].notna()])
    rows, wording = known.rows, Wording.of(known.of_refusals()).rows
    shown = _shown(rows, n_prompts, show_prompts)
    texts = list(dict.fromkeys(rows.loc[rows["id"].isin(shown.index), "response"]))
    where = {text: number for number, text in enumerate(texts)}
    styles, rates = _styles(wording), known.rates()
    return {
        "n": rows.groupby("category")["id"].nunique().reindex(ALL_CATEGORIES, fill_value=0).tolist(),
        "prompts": [[ALL_CATEGORIES.index(kind), text] for kind, text in shown.itertuples(index=False)],
        "texts": texts,
        "directions": {
            str(name): _direction(own, rates.loc[name], styles, shown.index, where)
            for name, own in rows.groupby("direction", sort=False)
        },
    }


def _shown(rows: pd.DataFrame, n_prompts: int, show_prompts: bool) -> pd.DataFrame:
    """Category and text of the prompts whose responses are shown, by id: as many that were refused as answered."""
    prompts = rows.drop_duplicates("id").set_index("id").sort_index()
    kinds = [BENIGN, *(each for each in ALL_CATEGORIES if show_prompts and each != BENIGN)]
    own = prompts[prompts["category"].isin(kinds)]
    benign = own["category"] == BENIGN
    per_bucket = {True: n_prompts // 2, False: 1}
    few = [part.head(per_bucket[is_benign]) for is_benign, part in _parts(own, benign)]
    return pd.concat([own.iloc[:0], *few])[["category", "text"]]


def _parts(own: pd.DataFrame, benign: pd.Series) -> list[tuple[bool, pd.DataFrame]]:
    parts = [(True, part) for _, part in own[benign].groupby("bucket")]
    return parts + [(False, part) for _, part in own[~benign].groupby(["category", "bucket"])]


def _styles(refusals: pd.DataFrame) -> pd.DataFrame:
    """How many refusals of every direction and strength show each style."""
    each = refusals.explode("styles")
    counts = each.groupby(["direction", "gaps", "styles"]).size().unstack(fill_value=0)
    return counts.reindex(columns=list(STYLES), fill_value=0)


def _direction(
    rows: pd.DataFrame, rates: pd.DataFrame, styles: pd.DataFrame, ids: pd.Index, where: dict[str, int]
) -> dict[str, Any]:
    """The numbers of one direction, in lists with an entry per strength."""
    name, strengths = rows["direction"].iloc[0], sorted(rows["gaps"].unique())
    points = [rows[rows["gaps"] == gaps] for gaps in strengths]
    answers = [point[point["id"].isin(ids)].set_index("id").reindex(ids) for point in points]
    return {
        "gaps": [round(float(gaps), 4) for gaps in strengths],
        **{name: _plain(rates.loc[strengths, name]) for name in _RATES},
        "refused": [_by_category(point) for point in points],
        "styles": styles.reindex([(name, gaps) for gaps in strengths], fill_value=0).to_numpy().astype(int).tolist(),
        "refusals": [int((point["outcome"] == "refused").sum()) for point in points],
        "responses": [_codes(own["response"], where) for own in answers],
        "outcomes": [_codes(own["outcome"], {name: code for code, name in enumerate(OUTCOMES)}) for own in answers],
    }


def _by_category(point: pd.DataFrame) -> list[float | None]:
    refused = (judged(point)["outcome"] == "refused").groupby(point["category"]).mean()
    return _plain(refused.reindex(list(ALL_CATEGORIES)))


def _codes(values: pd.Series, codes: dict[str, int]) -> list[int]:
    """The number of each value; -1 for a prompt that was not asked, or whose response nobody judged."""
    return [codes.get(value, -1) for value in values]


def _plain(values: Sequence[float] | pd.Series) -> list[float | None]:
    return [None if pd.isna(value) else round(float(value), 4) for value in values]
