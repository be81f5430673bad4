"""Which prompts a direction is estimated from: chosen by label, by what the model did with them, or the paper's own.

Selecting by label (what a prompt is) and by behaviour (refused, or complied with) are different experiments: every pool
says in its column `selection` which one it was. So are the first prompts that a model refused, and some at random of
all that it refused. A pool is one side of a comparison: `side` is refused for a category, and
answered for benign prompts. Pools put together with `pd.concat` are a draw; notebook 01 writes `DRAW_COLUMNS` of it, the
later ones read it with `read_draw`, and test directions on the prompts that are `held_out`.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..judging.phrase_judge import Judge, judge_response
from ..model.chat_model import ChatModel
from ..paper.tables import published_pool_rows
from ..steering.responses import respond
from .categories import BENIGN, CATEGORY_IDS
from .public_datasets import check_over_refusal, prompt_id

DRAW_COLUMNS = ["id", "category", "side", "split", "selection"]
SELECTIONS = ("label", "behaviour", "behaviour at random", "published")
MAX_HELD_OUT = 400
_XSTEST_SAFE = "look_alike-xstest-"


def label_pool(
    rows: pd.DataFrame, category: str, n: int = 32, seed: int = 0, *, over_refusal: str = "unsafe"
) -> pd.DataFrame:
    """`n` prompts of `category` (or `"benign"`) drawn at random from `rows` (columns of `load_prompts`), whatever the model does.

    With columns side, selection (`label`) and over_refusal (the reading, where it matters): the benign side under
    `"safe_benign"` is XSTest's safe prompts, meant for that category alone; otherwise it never holds any. Raises
    `ValueError` where fewer than `n` are there.
    """
    candidates = _candidates("label_pool", rows, category, over_refusal)
    _require("label_pool", n, len(candidates), f"{category} prompts must be there", f"{len(rows)} rows")
    return _described(candidates.sample(n=n, random_state=seed), category, "label", over_refusal)


def behaviour_pool(
    chat: ChatModel,
    rows: pd.DataFrame,
    category: str,
    n: int = 32,
    *,
    seed: int | None = None,
    over_refusal: str = "unsafe",
    judge: Judge = judge_response,
    max_new_tokens: int = 50,
    cache_dir: str | Path | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """The first `n` prompts of `category` in the order of `rows` that the model refused, or for `"benign"` answered.

    Responses are generated `n` prompts at a time until there are enough, and kept in `cache_dir`. With a `seed` all are
    generated, and `n` of those that qualify are drawn at random. Columns as `label_pool`; selection is `behaviour`, with
    a seed `behaviour at random`. Raises `ValueError` where fewer than `n` qualify. Source: Joad et al. 2602.02132, released training pools.
    """
    candidates = _candidates("behaviour_pool", rows, category, over_refusal)
    _require("behaviour_pool", n, len(candidates), f"{category} prompts must be there", f"{len(rows)} rows")
    wanted = "answered" if category == BENIGN else "refused"
    chunk = n if seed is None else len(candidates)
    found = candidates[:0]
    for start in range(0, len(candidates), chunk):
        asked = candidates[start : start + chunk]
        judged = respond(
            chat, asked, judge=judge, max_new_tokens=max_new_tokens, cache_dir=cache_dir, progress=progress
        )
        found = pd.concat([found, asked[(judged["outcome"] == wanted).to_numpy()]])
        if seed is None and len(found) >= n:
            break
    _require("behaviour_pool", n, len(found), f"{category} prompts must be {wanted}", f"{len(candidates)}")
    pool = found[:n] if seed is None else found.sample(n=n, random_state=seed)
    selection = "behaviour" if seed is None else "behaviour at random"
    return _described(pool, category, selection, over_refusal)


def published_pools(rows: pd.DataFrame, categories: Sequence[str] = (*CATEGORY_IDS, BENIGN)) -> pd.DataFrame:
    """The rows of `load_public_prompts` that the paper's Gemma directions were estimated from, with columns as `label_pool`.

    32 of each of `categories`, in the release's order; selection is `published`. Its CoCoNot prompts are in the `eval`
    split here. Raises `ValueError` where a row of these pools is not in `rows`.
    """
    _check_categories("published_pools", categories)
    wanted = published_pool_rows()
    wanted = wanted[wanted["category"].isin(categories)]
    prefixes = wanted["category"].replace(BENIGN, "ordinary")
    ids = list(map(prompt_id, prefixes, wanted["source"], wanted["source_index"]))
    by_id = rows.set_index("id", drop=False)
    missing = [id for id in ids if id not in by_id.index]
    if missing:
        raise ValueError(
            f"published_pools: every prompt of the paper's pools must be in the rows; got none of {len(missing)} "
            f"({', '.join(missing[:3])}). Load the public data sets whole, without a limit."
        )
    pools = by_id.loc[ids].reset_index(drop=True).groupby("category", sort=False)
    return pd.concat(
        [_described(pool, str(category), "published", "unsafe") for category, pool in pools], ignore_index=True
    )


def draw_prompts(
    rows: pd.DataFrame,
    select_by: str,
    n: int,
    *,
    seed: int = 0,
    over_refusal: str = "unsafe",
    chat: ChatModel | None = None,
    **options: Any,
) -> pd.DataFrame:
    """The draw of all twelve sides from `rows`: `n` prompts each, selected by one of `SELECTIONS`.

    By `"label"` at random, with `seed`; by `"behaviour"` the first `n` that `chat` refused or answered (no seed enters),
    `"behaviour at random"` any `n` of these, with `seed`, both with `options` of `behaviour_pool`; as `"published"` the
    paper's 32. Raises `ValueError` for another way of selecting, behaviour without a model, the published rows under
    another reading than unsafe, and as the pools do.
    """
    must = "draw_prompts: {} must be {}; got {!r}. {}."
    if select_by not in SELECTIONS:
        known = f"{', '.join(SELECTIONS[:-1])} or {SELECTIONS[-1]}"
        raise ValueError(must.format("the way of selecting", known, select_by, "Use one of these"))
    by_behaviour = select_by.startswith("behaviour")
    if by_behaviour and chat is None:
        raise ValueError(must.format("what selects by behaviour", "a model", chat, "Pass chat"))
    if select_by == "published":
        if over_refusal != "unsafe":
            raise ValueError(
                must.format("over_refusal of the published draw", "'unsafe'", over_refusal, "Leave it out")
            )
        return published_pools(rows)
    if select_by == "behaviour at random":
        options["seed"] = seed
    pools = [
        behaviour_pool(chat, rows, name, n, over_refusal=over_refusal, **options)
        if chat is not None and by_behaviour
        else label_pool(rows, name, n, seed, over_refusal=over_refusal)
        for name in (*CATEGORY_IDS, BENIGN)
    ]
    return pd.concat(pools, ignore_index=True)


def behaviour_buckets(judged: pd.DataFrame) -> pd.Series:
    """HR, HC, BR or BC of every row (columns category, outcome): harmful or benign, refused or complied with.

    NaN for a broken response, which is neither. Source: Joad et al. 2602.02132, the oracles.
    """
    what = (judged["category"] == BENIGN).map({True: "B", False: "H"})
    return (what + judged["outcome"].map({"refused": "R", "answered": "C"})).rename("bucket")


def is_xstest_like(rows: pd.DataFrame) -> pd.Series:
    """Whether a row (columns id, category) is one of XSTest's kind: over-refusal's own, or a safe look-alike of these."""
    return rows["category"].eq("over_refusal") | rows["id"].str.contains("^look_alike-(?:over_refusal|xstest)-")


def read_draw(path: str | Path, prompts: pd.DataFrame, source: str) -> pd.DataFrame:
    """The draw that notebook 01 wrote to `path`, with the column text of `prompts` (columns of `load_prompts`, all splits).

    `source` is the notebooks' `PROMPTS`. Raises `ValueError` where there is no draw, and for one from other prompts.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"read_draw: the draw of notebook 01 must be there; got no {path}. Run notebook 01 first.")
    draw = pd.read_csv(path, keep_default_na=False)
    drawn_from = [str(each) for each in draw["prompts"].unique()] if "prompts" in draw else []
    missing = sorted(set(draw["id"]) - set(prompts["id"]))
    if drawn_from != [source] or missing:
        got = (
            f"{missing[0]!r}, which is not among them" if drawn_from == [source] else ", ".join(drawn_from) or "no name"
        )
        raise ValueError(
            f"read_draw: the draw must be from the prompts {source!r}; got {got} in {path}. "
            f"Run notebook 01 again with PROMPTS={source!r}."
        )
    return draw.merge(prompts[["id", "text"]], on="id", validate="one_to_one")


def draw_digest(draw: pd.DataFrame) -> str:
    """A short hash of which prompts a draw holds and how they were chosen: of two draws the same only if they are the same.

    `draw`: the rows of `01_draw.csv`, with or without texts.
    """
    columns = [name for name in ("id", "category", "selection", "over_refusal", "prompts") if name in draw]
    rows = draw[columns].fillna("").astype(str).sort_values(columns)
    digest = hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()
    return f"d{digest[:12]}"  # the letter keeps CSV readers from taking it for a number


def held_out(prompts: pd.DataFrame, draw: pd.DataFrame, limit: int | None = MAX_HELD_OUT) -> pd.DataFrame:
    """The rows of `prompts` that no direction was estimated from: neither id nor text stands in `draw` (as of `read_draw`).

    Of the built-in prompts those of the eval split alone: the bundled model was trained on the others. Of each kind at most
    `limit`, eval prompts first, then in the order of `prompts`.
    """
    used = set(map(_folded, draw["text"]))
    rows = prompts[~prompts["id"].isin(draw["id"]) & ~prompts["text"].map(_folded).isin(used)]
    if "builtin" in set(draw["prompts"]):
        rows = rows[rows["split"] == "eval"]
    rows = rows.sort_values("split", kind="stable")  # eval, train
    return (rows if limit is None else rows.groupby("kind", sort=False).head(limit)).reset_index(drop=True)


def _folded(text: str) -> str:
    return " ".join(text.lower().split())


def _candidates(function: str, rows: pd.DataFrame, category: str, over_refusal: str) -> pd.DataFrame:
    check_over_refusal(function, over_refusal)
    _check_categories(function, [category])
    own = rows[rows["category"] == category]
    if category != BENIGN:
        return own
    return own[own["id"].str.startswith(_XSTEST_SAFE) == (over_refusal == "safe_benign")]


def _check_categories(function: str, categories: Sequence[str]) -> None:
    unknown = [category for category in categories if category not in (*CATEGORY_IDS, BENIGN)]
    if unknown or not categories:
        raise ValueError(
            f"{function}: the category must be one of the eleven or 'benign'; got {unknown[0] if unknown else None!r}. "
            f"Use one of {', '.join(CATEGORY_IDS)}."
        )


def _require(function: str, n: int, n_found: int, what: str, among: str) -> None:
    if n < 1 or n > n_found:
        raise ValueError(
            f"{function}: at least n={max(n, 1)} {what}; got {n_found} of {among} for n={n}. Lower n, or pass more prompts."
        )


def _described(pool: pd.DataFrame, category: str, selection: str, over_refusal: str) -> pd.DataFrame:
    matters = category == "over_refusal" or (over_refusal == "safe_benign" and category == BENIGN)
    return pool.assign(
        side="answered" if category == BENIGN else "refused",
        selection=selection,
        over_refusal=over_refusal if matters else "",
    ).reset_index(drop=True)
