"""The rules of the built-in prompts (`prompts/README.md`), which `test_validation` checks."""

from collections import Counter
from collections.abc import Iterable

import pandas as pd

from refusal_utils.prompts.categories import ALL_CATEGORIES, BENIGN, CATEGORY_IDS
from refusal_utils.prompts.files import SPLITS
from refusal_utils.prompts.text_features import NEAR_DUPLICATE, word_ngrams, words_of

MIN_PER_CATEGORY = {"train": 96, "eval": 64}
MIN_BENIGN, MIN_LOOK_ALIKES, MIN_TWINS = 640, 200, 40
MAX_SAME_OPENING = 0.1  # share of a category's prompts that may begin with the same three words
WORDS = (3, 60)


def validate_prompts(frame: pd.DataFrame) -> list[str]:
    """One sentence for each violation of the rules in `prompts/README.md`; empty if there is none.

    The rules concern counts per category and split, ids, lengths, pairs (one prompt of a category and one benign twin
    in the same split), templates (at most a tenth of a category begin with the same three words), and near-duplicates
    (word 3-gram Jaccard below 0.5 between any two prompts, twins included).
    """
    checks = (_count_faults, _row_faults, _pair_faults, _template_faults, _duplicate_faults)
    return [fault for check in checks for fault in check(frame)]


def _count_faults(frame: pd.DataFrame) -> list[str]:
    faults = []
    for category in CATEGORY_IDS:
        rows = frame[frame["category"] == category]
        for split, least in MIN_PER_CATEGORY.items():
            if (count := int((rows["split"] == split).sum())) < least:
                faults.append(f"{category}: {count} {split} prompts, at least {least} needed")
        if (twins := int((rows["pair_id"] != "").sum())) < MIN_TWINS:
            faults.append(f"{category}: {twins} prompts with a twin, at least {MIN_TWINS} needed")
    benign = frame[frame["category"] == BENIGN]
    for name, count, least in (
        ("benign", len(benign), MIN_BENIGN),
        ("look_alike", int((benign["kind"] == "look_alike").sum()), MIN_LOOK_ALIKES),
    ):
        if count < least:
            faults.append(f"{name}: {count} prompts, at least {least} needed")
    return faults


def _row_faults(frame: pd.DataFrame) -> list[str]:
    faults = [f"{id}: the id occurs twice" for id in frame["id"][frame["id"].duplicated()]]
    for row in frame.itertuples():
        if row.category not in ALL_CATEGORIES:
            faults.append(f"{row.id}: unknown category {row.category!r}")
        if row.split not in SPLITS:
            faults.append(f"{row.id}: unknown split {row.split!r}")
        if not WORDS[0] <= (count := len(words_of(str(row.text)))) <= WORDS[1]:
            faults.append(f"{row.id}: {count} words, {WORDS[0]} to {WORDS[1]} allowed")
    return faults


def _template_faults(frame: pd.DataFrame) -> list[str]:
    faults = []
    for category, rows in frame.groupby("category"):
        openings = rows["text"].map(lambda text: " ".join(text.lower().split()[:3])).value_counts()
        if openings.iloc[0] > max(1, MAX_SAME_OPENING * len(rows)):
            faults.append(f"{category}: {openings.iloc[0]} of {len(rows)} prompts begin with {openings.index[0]!r}")
    return faults


def _pair_faults(frame: pd.DataFrame) -> list[str]:
    faults = []
    for pair_id, rows in frame[frame["pair_id"] != ""].groupby("pair_id"):
        benign = int((rows["category"] == BENIGN).sum())
        if len(rows) != 2 or benign != 1:
            faults.append(f"{pair_id}: {len(rows)} prompts, {benign} of them benign; a pair is one of each")
        elif rows["split"].nunique() != 1:
            faults.append(f"{pair_id}: the pair is divided between train and eval")
    return faults


def _duplicate_faults(frame: pd.DataFrame) -> list[str]:
    ids = list(frame["id"])
    return [
        f"{ids[i]} and {ids[j]}: near-duplicates, word 3-gram Jaccard {overlap:.2f}"
        for i, j, overlap in near_duplicates(frame["text"])
    ]


def near_duplicates(texts: Iterable[str], threshold: float = NEAR_DUPLICATE) -> list[tuple[int, int, float]]:
    """All pairs (i, j, Jaccard) of texts, i < j, whose sets of word 3-grams overlap by at least `threshold`.

    Only pairs that share a 3-gram are compared, so thousands of texts take one second.
    """
    grams = [set(word_ngrams(text, 3)) for text in texts]
    holders: dict[tuple[str, ...], list[int]] = {}
    pairs = []
    for index, own in enumerate(grams):
        shared = Counter(other for gram in own for other in holders.get(gram, ()))
        for other, count in shared.items():
            overlap = count / (len(own) + len(grams[other]) - count)
            if overlap >= threshold:
                pairs.append((other, index, overlap))
        for gram in own:
            holders.setdefault(gram, []).append(index)
    return pairs
