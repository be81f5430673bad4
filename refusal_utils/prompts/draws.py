"""Draws: the prompts that directions are estimated from, chosen by label, by behaviour, or as the paper did.

The column `selection` records how prompts were chosen, because selecting by label (what a prompt is) and by behaviour
(whether the model refused it) are different experiments. `side` is `refused` for a category and `answered` for the
benign prompts. Nothing here runs a model: the caller passes `outcome_of`.
"""

import hashlib
from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd

from ..checks import invalid, require, require_columns, require_known, require_types
from .categories import ALL_CATEGORIES, BENIGN
from .text_features import folded

DRAW_COLUMNS = ["id", "category", "side", "split", "selection"]
SELECTIONS = ("label", "behaviour", "behaviour at random", "published")
OVER_REFUSAL = ("unsafe", "safe_benign")
MIN_REFUSED = 8  # prompts that a direction by behaviour needs
MIN_CATEGORIES = 3  # with fewer there is no geometry of directions

# The outcome ("refused", "answered" or "broken") of each row of a frame of prompts, in the order of the rows.
OutcomeOf = Callable[[pd.DataFrame], Sequence[str]]


def draw_prompts(
    rows: pd.DataFrame,
    select_by: str,
    n: int,
    *,
    seed: int = 0,
    over_refusal: str = "unsafe",
    outcome_of: OutcomeOf | None = None,
    published: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """A draw from `rows` (columns of `load_prompts`): `n` prompts of every category and `n` benign ones.

    `select_by`: `"label"` (any prompts, at random), `"behaviour"` (the first that `outcome_of` calls refused, or for
    the benign side answered, as in the release of Joad et al. 2602.02132), `"behaviour at random"` (any of those), or
    `"published"` (the rows of the paper's pools, `paper.tables.published_pool_rows`, whatever `n`). By behaviour a side
    may have fewer than `n`, and a category with fewer than 8 (or `n`, if smaller) is left out. With
    `over_refusal="safe_benign"` the benign side is XSTest's safe prompts, otherwise it has none of them. Adds the
    columns side, selection and over_refusal (the reading, for the prompts that it concerns). Raises `ValueError` if an
    argument is unknown or missing, if too few prompts qualify, or if fewer than three categories are left.
    """
    require_columns("draw_prompts", rows, "id", "category", "text")
    require_known("draw_prompts", "select_by", select_by, SELECTIONS)
    require_types("draw_prompts", (Integral,), n=n)
    readings = ("unsafe",) if select_by == "published" else OVER_REFUSAL
    must = f"over_refusal of a draw by {select_by} must be {' or '.join(map(repr, readings))}"
    require(over_refusal in readings, "draw_prompts", must, repr(over_refusal), "Leave it out.")
    if select_by == "published":
        draw = _published(rows, published)
    else:
        pools = [_pool(rows, name, select_by, n, seed, over_refusal, outcome_of) for name in ALL_CATEGORIES]
        draw = pd.concat(pools, ignore_index=True)
        n_left = sum(len(pool) > 0 for pool in pools[:-1])
        must = f"at least {MIN_CATEGORIES} categories must have {min(n, MIN_REFUSED)} prompts that are refused"
        todo = "Pass more prompts, or select by label."
        require(n_left >= MIN_CATEGORIES, "draw_prompts", must, n_left, todo)
    benign = draw["category"] == BENIGN
    concerned = draw["category"].eq("over_refusal") | (benign & (over_refusal == "safe_benign"))
    side, reading = np.where(benign, "answered", "refused"), np.where(concerned, over_refusal, "")
    return draw.assign(side=side, selection=select_by, over_refusal=reading)


def _published(rows: pd.DataFrame, published: pd.DataFrame | None) -> pd.DataFrame:
    """The prompts of the paper's own pools (columns category, source, source_index), in the release's order."""
    if published is None:
        raise invalid("draw_prompts", "the published draw needs the paper's rows", None, "Pass published.")
    kinds = published["category"].replace(BENIGN, "ordinary")
    ids = kinds + "-" + published["source"] + "-" + published["source_index"].astype(str)
    missing = ids[~ids.isin(rows["id"])]
    must = "every prompt of the paper's pools must be in the rows"
    got = f"none of {len(missing)} ({', '.join(missing[:3])})"
    require(missing.empty, "draw_prompts", must, got, "Load the paper's prompts.")
    return rows.set_index("id", drop=False).loc[ids].reset_index(drop=True)


def _pool(
    rows: pd.DataFrame,
    category: str,
    select_by: str,
    n: int,
    seed: int,
    over_refusal: str,
    outcome_of: OutcomeOf | None,
) -> pd.DataFrame:
    own = rows[rows["category"] == category]
    own = own[~own["text"].map(folded).duplicated()]
    if category == BENIGN:
        own = own[own["id"].str.startswith("look_alike-xstest-") == (over_refusal == "safe_benign")]
    found, wanted = own, "available"
    if select_by != "label":
        wanted = "answered" if category == BENIGN else "refused"
        found = _with_outcome(own, wanted, n if select_by == "behaviour" else len(own), outcome_of)
    least = n if select_by == "label" else min(n, MIN_REFUSED)
    if wanted == "refused" and n >= 1 and len(found) < least:
        return found[:0]
    must = f"at least n={max(least, 1)} {category} prompts must be {wanted}"
    got = f"{len(found)} of {len(own)} for n={n}"
    require(n >= 1 and least <= len(found), "draw_prompts", must, got, "Lower n, or pass more prompts.")
    return found[:n] if select_by == "behaviour" else found.sample(n=min(n, len(found)), random_state=seed)


def _with_outcome(rows: pd.DataFrame, wanted: str, n: int, outcome_of: OutcomeOf | None) -> pd.DataFrame:
    """The rows whose outcome is `wanted`, asked for `n` rows at a time until that many are found."""
    if outcome_of is None:
        raise invalid("draw_prompts", "selecting by behaviour needs a model's outcomes", None, "Pass outcome_of.")
    found = rows[:0]
    while len(rows) and len(found) < n:
        asked, rows = rows[:n], rows[n:]
        found = pd.concat([found, asked[[outcome == wanted for outcome in outcome_of(asked)]]])
    return found


def behaviour_buckets(judged: pd.DataFrame) -> pd.Series:
    """HR, HC, BR or BC for each row (columns category, outcome): harmful or benign, refused or complied with.

    Broken responses are in no bucket (NaN). Source: Joad et al. 2602.02132, the oracles.
    """
    kind = (judged["category"] == BENIGN).map({True: "B", False: "H"})
    return (kind + judged["outcome"].map({"refused": "R", "answered": "C"})).rename("bucket")


def read_draw(path: str | Path, prompts: pd.DataFrame, source: str) -> pd.DataFrame:
    """The draw that notebook 01 wrote to `path`, with the texts of `prompts` (columns of `load_prompts`, all splits).

    `source` is the notebooks' `PROMPTS`. Raises `ValueError` if there is no draw, or if it was made from other prompts.
    """
    path = Path(path)
    require_columns("read_draw", prompts, "id", "text")
    require(path.is_file(), "read_draw", "notebook 01 must have written a draw", f"no {path}", "Run notebook 01 first.")
    draw = read_draw_rows(path)
    others = [f"prompts {each!r}" for each in draw["prompts"].unique() if each != source]
    others += [f"{id!r}, which is not among them" for id in sorted(set(draw["id"]) - set(prompts["id"]))]
    must, todo = f"the draw must be from the prompts {source!r}", f"Run notebook 01 again with PROMPTS={source!r}."
    require(not others, "read_draw", must, f"{', '.join(others[:1])} in {path}", todo)
    return draw.merge(prompts[["id", "text"]], on="id", validate="one_to_one")


def read_draw_rows(path: str | Path) -> pd.DataFrame:
    """The rows of a `01_draw.csv`, with ids such as 007 and NA as they are. Empty if there is no such file."""
    draw = pd.read_csv(path, dtype=str, keep_default_na=False) if Path(path).is_file() else pd.DataFrame()
    return draw.assign(confidence=pd.to_numeric(draw["confidence"])) if "confidence" in draw else draw


def confidence_by_category(draw: pd.DataFrame) -> dict[str, list[float]] | None:
    """The column `confidence` of a draw by category, each in the order of the draw; None if there is no such column."""
    if "confidence" not in draw:
        return None
    return {name: own.to_list() for name, own in draw.groupby("category")["confidence"]}


def draw_digest(draw: pd.DataFrame) -> str:
    """A short hash of a draw (the rows of `01_draw.csv`): equal for two draws only if they hold the same prompts.

    Prompts chosen in another way, or from another source, give another hash. Texts and the order of rows do not count.
    """
    columns = [name for name in ("id", "category", "selection", "over_refusal", "prompts") if name in draw]
    rows = draw[columns].fillna("").astype(str).sort_values(columns)
    digest = hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()
    return f"d{digest[:12]}"  # the letter keeps CSV readers from taking it for a number


def held_out(prompts: pd.DataFrame, draw: pd.DataFrame, limit: int | None = 400) -> pd.DataFrame:
    """The rows of `prompts` that made no direction: `draw` has neither their id nor their text, in any form.

    Of the built-in prompts only the eval split is returned, because the bundled model was trained on the other. At most
    `limit` prompts of each kind, eval prompts first, then in the order of `prompts`.
    """
    require_columns("held_out", prompts, "id", "text", "kind", "split")
    require_columns("held_out", draw, "id", "text", "prompts")
    used = set(map(folded, draw["text"]))
    rows = prompts[~prompts["id"].isin(draw["id"]) & ~prompts["text"].map(folded).isin(used)]
    if "builtin" in set(draw["prompts"]):
        rows = rows[rows["split"] == "eval"]
    rows = rows.sort_values("split", kind="stable")  # eval, train
    return (rows if limit is None else rows.groupby("kind", sort=False).head(limit)).reset_index(drop=True)
