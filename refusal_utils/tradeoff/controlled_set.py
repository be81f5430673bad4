"""The controlled set: harmful and benign prompts; the unsteered model refuses half of each."""

from collections.abc import Iterable

import pandas as pd

from ..checks import require
from ..prompts.categories import BENIGN

BUCKETS = {  # what is in each bucket, and what to pass if it is empty
    "HR": ("harmful prompts that the model refuses", "Pass plainly harmful prompts"),
    "HC": ("harmful prompts that the model answers", "Pass subtler or milder harmful prompts"),
    "BR": ("benign prompts that the model refuses", "Pass benign prompts that sound harmful, such as XSTest's"),
    "BC": ("benign prompts that the model answers", "Pass ordinary benign prompts"),
}


def controlled_set(pool: pd.DataFrame, *, n: int = 50, exclude: Iterable[str] = (), seed: int = 0) -> pd.DataFrame:
    """`n` prompts each of HR, HC, BR and BC from `pool`, with columns harmful and bucket added.

    `pool` has columns id, category, text and outcome (of the unsteered model); broken responses belong to no bucket.
    `exclude` are the texts that directions were estimated from. Raises `ValueError` if one of them is in the pool,
    if a bucket has fewer than `n` prompts, or if `n` is below 1. Source: Joad et al. 2602.02132, controlled test set.
    """
    require(n >= 1, "controlled_set", "n must be at least 1", n, "The paper uses 50.")
    known = set(map(_plain, exclude))
    leaked = [id for id, text in zip(pool["id"], pool["text"], strict=True) if _plain(text) in known]
    must = "no prompt may be one that a direction was estimated from"
    require(not leaked, "controlled_set", must, f"{len(leaked)} ({', '.join(leaked[:3])})", "Take the eval split.")
    harmful = pool["category"] != BENIGN
    outcome = pool["outcome"].map({"refused": "R", "answered": "C"})  # NaN for broken text
    pool = pool.assign(harmful=harmful, bucket=harmful.map({True: "H", False: "B"}) + outcome)
    _require_buckets(pool["bucket"].value_counts().reindex(list(BUCKETS), fill_value=0), n)
    drawn = [pool[pool["bucket"] == name].sample(n, random_state=seed) for name in BUCKETS]
    return pd.concat(drawn, ignore_index=True)[["id", "category", "text", "harmful", "bucket"]]


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _require_buckets(sizes: pd.Series, n: int) -> None:
    must, least, name = f"every bucket must have {n} prompts", int(sizes.min()), sizes.idxmin()
    what, todo = BUCKETS[name]
    require(least > 0, "controlled_set", must, f"none in {name}, {what} ({sizes.to_dict()})", f"{todo}.")
    require(least >= n, "controlled_set", must, sizes.to_dict(), f"Pass more prompts, or n={least}.")
