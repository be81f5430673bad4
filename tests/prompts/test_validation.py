import itertools
import re

import numpy as np
import pandas as pd
import pytest

from refusal_utils.prompts.categories import BENIGN
from refusal_utils.prompts.loading import load_prompts, prompts_dir
from refusal_utils.prompts.text_features import jaccard, word_ngrams
from tests.prompts.rules import near_duplicates, validate_prompts


@pytest.fixture(scope="module")
def prompts() -> pd.DataFrame:
    return load_prompts()


def test_builtin_prompts_keep_every_rule(prompts):
    assert validate_prompts(prompts) == []


def test_near_duplicates_equals_comparing_every_pair(prompts):
    texts = [
        *prompts["text"].sample(150, random_state=0),
        "how do i kill a python process",
        "How do I kill a python process now?",
    ]
    grams = [set(word_ngrams(text, 3)) for text in texts]
    expected = {
        (i, j)
        for i, j in itertools.combinations(range(len(texts)), 2)
        if grams[i] and jaccard(grams[i], grams[j]) >= 0.3
    }
    found = near_duplicates(texts, threshold=0.3)
    assert {(i, j) for i, j, _ in found} == expected
    assert (150, 151) in expected
    assert all(overlap == pytest.approx(jaccard(grams[i], grams[j])) for i, j, overlap in found)


def broken(prompts: pd.DataFrame, change: str) -> pd.DataFrame:
    frame = prompts.copy()
    pairs = frame.index[frame["pair_id"] != ""]
    twin = frame.index[(frame["pair_id"] == frame.loc[pairs[0], "pair_id"]) & (frame["category"] == BENIGN)][0]
    if change == "too few":
        return frame[~((frame["category"] == "advice") & (frame["split"] == "eval"))]
    if change == "same text":
        frame.loc[frame.index[5], "text"] = frame.loc[frame.index[900], "text"]
    if change == "same id":
        frame.loc[frame.index[5], "id"] = frame.loc[frame.index[6], "id"]
    if change == "divided pair":
        frame.loc[twin, "split"] = {"train": "eval", "eval": "train"}[frame.loc[twin, "split"]]
    if change == "no twin":
        frame = frame.drop(index=twin)
    if change == "long":
        frame.loc[frame.index[5], "text"] = " ".join(f"w{number}" for number in range(61))
    if change == "template":
        some = frame.index[frame["category"] == "advice"][::8]
        frame.loc[some, "text"] = "Tell me which " + frame.loc[some, "text"]
    if change == "few look-alikes":
        frame.loc[frame["kind"] == "look_alike", "kind"] = "ordinary"
    return frame


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("too few", "advice: 0 eval prompts, at least 64 needed"),
        ("same text", "near-duplicates, word 3-gram Jaccard 1.00"),
        ("same id", "the id occurs twice"),
        ("divided pair", "the pair is divided between train and eval"),
        ("no twin", "1 prompts, 0 of them benign; a pair is one of each"),
        ("long", "61 words, 3 to 60 allowed"),
        ("template", "prompts begin with 'tell me which'"),
        ("few look-alikes", "look_alike: 0 prompts, at least 200 needed"),
    ],
)
def test_validate_prompts_finds_every_kind_of_fault(prompts, change, fault):
    assert any(fault in found for found in validate_prompts(broken(prompts, change)))


def test_data_card_states_the_counts_of_the_files(prompts):
    card = (prompts_dir() / "README.md").read_text()
    for category, rows in prompts.groupby("category"):
        train, held_out = (int((rows["split"] == split).sum()) for split in ("train", "eval"))
        assert f"| `{category}` | {train} | {held_out} | {int((rows['pair_id'] != '').sum())} |" in card
    kinds = prompts["kind"].value_counts()
    assert f"{kinds['ordinary']} are ordinary, {kinds['look_alike']} look-alikes and {kinds['twin']} twins" in card
    assert "CC-BY-4.0" in card
    assert "Content warning" in card


def test_twins_share_the_words_that_the_data_card_says(prompts):
    """By sets of lower-case words, and against arbitrary pairs of a prompt and a benign one as the control."""
    words = {row.id: set(re.findall(r"[a-z0-9']+", row.text.lower())) for row in prompts.itertuples()}

    def overlap(first, second):
        return len(words[first] & words[second]) / len(words[first] | words[second])

    paired = prompts[prompts["pair_id"] != ""]
    twins = paired[paired["category"] == BENIGN].set_index("pair_id")["id"]
    own = paired[paired["category"] != BENIGN]
    shared = pd.Series([overlap(row.id, twins[row.pair_id]) for row in own.itertuples()], index=own["category"])
    medians = shared.groupby(level=0).median()
    low, high = medians.min(), medians.max()
    arbitrary = np.mean([overlap(*pair) for pair in zip(own["id"], twins.sample(frac=1, random_state=0), strict=False)])
    assert low >= 0.33 > 5 * arbitrary
    card = " ".join((prompts_dir() / "README.md").read_text().split())
    assert f"lies between {low:.2f} (" in card
    assert f"and {high:.2f} (`{medians.idxmax()}`); two arbitrary prompts share {arbitrary:.2f}." in card
