"""The controlled set: harmful and benign prompts; the unsteered model refuses half of each."""

from collections.abc import Iterable, Mapping
from numbers import Integral

import pandas as pd

from ..checks import require, require_types
from ..prompts.categories import BENIGN
from ..prompts.draws import behaviour_buckets

BUCKETS = {  # what is in each bucket, and what to pass if there is too little of it
    "HR": ("harmful prompts that the model refuses", "Pass plainly harmful prompts"),
    "HC": ("harmful prompts that the model answers", "Pass subtler or milder harmful prompts"),
    "BR": ("benign prompts that the model refuses", "Pass benign prompts that sound harmful, such as XSTest's"),
    "BC": ("benign prompts that the model answers", "Pass ordinary benign prompts"),
}
SIDES = {"RR": ("HR", "HC"), "ORR": ("BR", "BC")}  # the buckets of the prompts whose refusals each rate counts
MIN_BUCKET = 15  # prompts; a smaller bucket is left out


def controlled_set(pool: pd.DataFrame, *, n: int = 50, exclude: Iterable[str] = (), seed: int = 0) -> pd.DataFrame:
    """Up to `n` prompts each of HR, HC, BR and BC from `pool`, with columns harmful and bucket added.

    `pool` has columns id, category, text and outcome (of the unsteered model); broken responses belong to no bucket. A
    side (harmful or benign) has as many refused as answered prompts, so its rate starts at one half. If one of its two
    buckets has fewer than 15 prompts (fewer than `n`, if `n` is smaller), that bucket is left out and the side has the
    other alone: its rate starts at 0 or 1. `exclude` are the texts that directions were estimated from. Raises
    `ValueError` if one of them is in the pool, if both buckets of a side are too small, or if `n` is below 1. Source:
    Joad et al. 2602.02132, controlled test set (50 prompts in every bucket).
    """
    require_types("controlled_set", (Integral,), n=n)
    require(n >= 1, "controlled_set", "n must be at least 1", n, "The paper uses 50.")
    known = set(map(_plain, exclude))
    leaked = [id for id, text in zip(pool["id"], pool["text"], strict=True) if _plain(text) in known]
    must = "no prompt may be one that a direction was estimated from"
    require(not leaked, "controlled_set", must, f"{len(leaked)} ({', '.join(leaked[:3])})", "Take the eval split.")
    pool = pool.assign(harmful=pool["category"] != BENIGN, bucket=behaviour_buckets(pool))
    available = pool["bucket"].value_counts().reindex(list(BUCKETS), fill_value=0).to_dict()
    sizes = balanced_sizes(available, n)
    _require_sides(available, sizes, n)
    drawn = [pool[pool["bucket"] == name].sample(int(size), random_state=seed) for name, size in sizes.items() if size]
    return pd.concat(drawn, ignore_index=True)[["id", "category", "text", "harmful", "bucket"]]


def cost_prompts(unsteered: pd.DataFrame, controlled: pd.DataFrame, n: int = 32, seed: int = 0) -> list[str]:
    """Up to `n` benign prompts that the unsteered model answers, to measure costs on.

    Those of the controlled set are taken last. Raises `ValueError` if there are none.
    """
    answered = unsteered[(unsteered["category"] == BENIGN) & (unsteered["outcome"] == "answered")]
    must = "the unsteered model must answer at least one benign prompt"
    require(len(answered) > 0, "cost_prompts", must, f"none of {len(unsteered)} prompts", "Pass ordinary ones.")
    mixed = answered.sample(frac=1, random_state=seed)
    order = mixed["id"].isin(controlled["id"]).sort_values(kind="stable").index
    return list(mixed.loc[order, "text"][:n])


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def balanced_sizes(available: Mapping[str, float], n: int) -> dict[str, float]:
    """How many prompts to take of each bucket: the same number on a side, or 0 of a bucket that is too small.

    >>> balanced_sizes({"HR": 40, "HC": 90, "BR": 3, "BC": 90}, 50)
    {'HR': 40, 'HC': 40, 'BR': 0, 'BC': 50}
    """
    sizes: dict[str, float] = dict.fromkeys(BUCKETS, 0)
    for side in SIDES.values():
        large = [name for name in side if available[name] >= min(n, MIN_BUCKET)]
        sizes |= dict.fromkeys(large, min([n, *(available[name] for name in large)]))
    return sizes


def _require_sides(available: Mapping[str, int], sizes: Mapping[str, float], n: int) -> None:
    for side in SIDES.values():
        what, todo = BUCKETS[max(side, key=lambda name: available[name])]
        must = f"one of {' and '.join(side)} must have {min(n, MIN_BUCKET)} prompts"
        enough = any(sizes[name] for name in side)
        require(enough, "controlled_set", must, f"{dict(available)}; most are {what}", f"{todo}.")


def describe_buckets(controlled: pd.DataFrame) -> str:
    """How many prompts each bucket of a controlled set has, where RR and ORR start, and which buckets are left out."""
    sizes = controlled["bucket"].value_counts().reindex(list(BUCKETS), fill_value=0)
    starts = {rate: sizes[refused] / (sizes[refused] + sizes[answered]) for rate, (refused, answered) in SIDES.items()}
    lines = ["prompts per bucket: " + ", ".join(f"{name} {size}" for name, size in sizes.items())]
    lines += ["unsteered: " + ", ".join(f"{rate} {start:.2f}" for rate, start in starts.items())]
    missing = [f"{name} ({BUCKETS[name][0]})" for name in BUCKETS if not sizes[name]]
    if missing:
        lines += ["left out, because too few were found: " + ", ".join(missing)]
    return "\n".join(lines)
