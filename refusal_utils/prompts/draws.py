"""Draws: the prompts that directions are estimated from, chosen by label, by the model's behaviour, or as the paper did.

Selecting by label (what a prompt is) and selecting by behaviour (whether the model refused it) are different
experiments, so the column `selection` records how each prompt was chosen. A pool is one side of a comparison: `side` is
`refused` for a category and `answered` for the benign prompts. A draw is all pools together; notebook 01 writes its
`DRAW_COLUMNS`, the later notebooks read them with `read_draw` and test directions on the prompts that are `held_out`.

Nothing here runs a model: `outcome_of` reports how a model responds to some prompts, and the caller provides it.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from ..checks import invalid, require
from .categories import ALL_CATEGORIES, BENIGN, require_category
from .public_datasets import check_over_refusal, prompt_id

DRAW_COLUMNS = ["id", "category", "side", "split", "selection"]
SELECTIONS = ("label", "behaviour", "behaviour at random", "published")
MAX_HELD_OUT = 400
_XSTEST_SAFE = "look_alike-xstest-"

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

    `select_by` is `"label"` (any prompts, at random), `"behaviour"` (the first ones that the model refused, or for the
    benign side answered; the seed has no effect), `"behaviour at random"` (any of those), or `"published"` (the rows of
    the paper's pools, whatever `n`). Selecting by behaviour needs `outcome_of`; the published draw needs `published`.
    Raises `ValueError` if `select_by` is unknown or its argument is missing, and as the pools do.
    """
    function = "draw_prompts"
    require(
        select_by in SELECTIONS,
        function,
        f"select_by must be one of {', '.join(SELECTIONS)}",
        repr(select_by),
        "Use one of these.",
    )
    if select_by == "published":
        require(
            over_refusal == "unsafe",
            function,
            "over_refusal of the published draw must be 'unsafe'",
            repr(over_refusal),
            "Leave it out.",
        )
        if published is None:
            raise invalid(function, "the published draw needs the paper's rows", None, "Pass published.")
        return published_pools(rows, published)
    if select_by == "label":
        pools = [label_pool(rows, name, n, seed, over_refusal=over_refusal) for name in ALL_CATEGORIES]
        return pd.concat(pools, ignore_index=True)
    if outcome_of is None:
        raise invalid(function, "selecting by behaviour needs a model's outcomes", None, "Pass outcome_of.")
    at_random = seed if select_by == "behaviour at random" else None
    pools = [
        behaviour_pool(rows, name, n, outcome_of=outcome_of, seed=at_random, over_refusal=over_refusal)
        for name in ALL_CATEGORIES
    ]
    return pd.concat(pools, ignore_index=True)


def label_pool(
    rows: pd.DataFrame, category: str, n: int = 32, seed: int = 0, *, over_refusal: str = "unsafe"
) -> pd.DataFrame:
    """`n` random prompts of `category` (or `"benign"`) from `rows`, whatever the model does with them.

    Adds the columns side, selection (`label`) and over_refusal (the reading, for the pools that it concerns). With
    `over_refusal="safe_benign"` the benign pool holds XSTest's safe prompts, which belong to the category over_refusal
    alone; otherwise it holds none of them. Raises `ValueError` if fewer than `n` prompts are available.
    """
    candidates = _candidates("label_pool", rows, category, n, over_refusal)
    return _described(candidates.sample(n=n, random_state=seed), category, "label", over_refusal)


def behaviour_pool(
    rows: pd.DataFrame,
    category: str,
    n: int = 32,
    *,
    outcome_of: OutcomeOf,
    seed: int | None = None,
    over_refusal: str = "unsafe",
) -> pd.DataFrame:
    """The first `n` prompts of `category`, in the order of `rows`, that the model refused (`"benign"`: answered).

    Outcomes are requested for `n` prompts at a time until enough qualify. With a `seed` they are requested for all
    prompts, `n` of those that qualify are drawn at random, and the selection is called `behaviour at random`. Columns as
    in `label_pool`. Raises `ValueError` if fewer than `n` qualify. Source: the released training pools of Joad et al.
    2602.02132.
    """
    candidates = _candidates("behaviour_pool", rows, category, n, over_refusal)
    wanted = "answered" if category == BENIGN else "refused"
    chunk = n if seed is None else len(candidates)
    found = candidates[:0]
    for start in range(0, len(candidates), chunk):
        asked = candidates[start : start + chunk]
        found = pd.concat([found, asked[[outcome == wanted for outcome in outcome_of(asked)]]])
        if seed is None and len(found) >= n:
            break
    _require_enough("behaviour_pool", n, len(found), f"{category} prompts must be {wanted}", f"{len(candidates)}")
    if seed is None:
        return _described(found[:n], category, "behaviour", over_refusal)
    return _described(found.sample(n=n, random_state=seed), category, "behaviour at random", over_refusal)


def published_pools(rows: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """The prompts of the paper's own pools, with columns as in `label_pool`; the selection is `published`.

    `rows` are those of `load_public_prompts`; `published` lists the pools in the release's order (columns category,
    source, source_index; `paper.tables.published_pool_rows`). Raises `ValueError` if `rows` lacks one of them.
    """
    prefixes = published["category"].replace(BENIGN, "ordinary")
    ids = list(map(prompt_id, prefixes, published["source"], published["source_index"]))
    by_id = rows.set_index("id", drop=False)
    missing = [id for id in ids if id not in by_id.index]
    require(
        not missing,
        "published_pools",
        "every prompt of the paper's pools must be in the rows",
        f"none of {len(missing)} ({', '.join(missing[:3])})",
        "Load the public data sets whole, without a limit.",
    )
    pools = by_id.loc[ids].reset_index(drop=True).groupby("category", sort=False)
    described = [_described(pool, str(category), "published", "unsafe") for category, pool in pools]
    return pd.concat(described, ignore_index=True)


def _candidates(function: str, rows: pd.DataFrame, category: str, n: int, over_refusal: str) -> pd.DataFrame:
    check_over_refusal(function, over_refusal)
    require_category(function, category)
    found = rows[rows["category"] == category]
    if category == BENIGN:
        found = found[found["id"].str.startswith(_XSTEST_SAFE) == (over_refusal == "safe_benign")]
    _require_enough(function, n, len(found), f"{category} prompts must be available", f"{len(rows)} rows")
    return found


def _require_enough(function: str, n: int, n_found: int, what: str, among: str) -> None:
    must = f"at least n={max(n, 1)} {what}"
    require(1 <= n <= n_found, function, must, f"{n_found} of {among} for n={n}", "Lower n, or pass more prompts.")


def _described(pool: pd.DataFrame, category: str, selection: str, over_refusal: str) -> pd.DataFrame:
    concerned = category == "over_refusal" or (over_refusal == "safe_benign" and category == BENIGN)
    return pool.assign(
        side="answered" if category == BENIGN else "refused",
        selection=selection,
        over_refusal=over_refusal if concerned else "",
    ).reset_index(drop=True)


def behaviour_buckets(judged: pd.DataFrame) -> pd.Series:
    """HR, HC, BR or BC for each row (columns category, outcome): harmful or benign, refused or complied with.

    Broken responses are in no bucket (NaN). Source: Joad et al. 2602.02132, the oracles.
    """
    kind = (judged["category"] == BENIGN).map({True: "B", False: "H"})
    return (kind + judged["outcome"].map({"refused": "R", "answered": "C"})).rename("bucket")


def is_xstest_like(rows: pd.DataFrame) -> pd.Series:
    """Whether each row (columns id, category) is an over-refusal prompt or a safe look-alike of one, as in XSTest."""
    return rows["category"].eq("over_refusal") | rows["id"].str.contains("^look_alike-(?:over_refusal|xstest)-")


def read_draw(path: str | Path, prompts: pd.DataFrame, source: str) -> pd.DataFrame:
    """The draw that notebook 01 wrote to `path`, with the texts of `prompts` (columns of `load_prompts`, all splits).

    `source` is the notebooks' `PROMPTS`. Raises `ValueError` if there is no draw, or if it was made from other prompts.
    """
    path = Path(path)
    require(path.is_file(), "read_draw", "notebook 01 must have written a draw", f"no {path}", "Run notebook 01 first.")
    draw = pd.read_csv(path, keep_default_na=False)
    drawn_from = [str(each) for each in draw["prompts"].unique()] if "prompts" in draw else []
    missing = sorted(set(draw["id"]) - set(prompts["id"]))
    if drawn_from != [source] or missing:
        of_others = ", ".join(drawn_from) or "no name"
        got = f"{missing[0]!r}, which is not among them" if drawn_from == [source] else of_others
        must = f"the draw must be from the prompts {source!r}"
        raise invalid("read_draw", must, f"{got} in {path}", f"Run notebook 01 again with PROMPTS={source!r}.")
    return draw.merge(prompts[["id", "text"]], on="id", validate="one_to_one")


def draw_digest(draw: pd.DataFrame) -> str:
    """A short hash of a draw (the rows of `01_draw.csv`): equal for two draws only if they hold the same prompts.

    Prompts chosen in another way, or from another source, give another hash. Texts and the order of rows do not count.
    """
    columns = [name for name in ("id", "category", "selection", "over_refusal", "prompts") if name in draw]
    rows = draw[columns].fillna("").astype(str).sort_values(columns)
    digest = hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()
    return f"d{digest[:12]}"  # the letter keeps CSV readers from taking it for a number


def held_out(prompts: pd.DataFrame, draw: pd.DataFrame, limit: int | None = MAX_HELD_OUT) -> pd.DataFrame:
    """The rows of `prompts` that no direction was estimated from: `draw` has neither their id nor their text.

    Of the built-in prompts only the eval split is returned, because the bundled model was trained on the other. At most
    `limit` prompts of each kind, eval prompts first, then in the order of `prompts`.
    """
    used = set(map(_folded, draw["text"]))
    rows = prompts[~prompts["id"].isin(draw["id"]) & ~prompts["text"].map(_folded).isin(used)]
    if "builtin" in set(draw["prompts"]):
        rows = rows[rows["split"] == "eval"]
    rows = rows.sort_values("split", kind="stable")  # eval, train
    return (rows if limit is None else rows.groupby("kind", sort=False).head(limit)).reset_index(drop=True)


def _folded(text: str) -> str:
    return " ".join(text.lower().split())
