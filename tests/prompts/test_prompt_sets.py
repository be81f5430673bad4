import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest

from refusal_utils.prompts.categories import BENIGN, CATEGORY_IDS
from refusal_utils.prompts.prompt_sets import (
    compare_texts,
    form_features,
    jaccard,
    load_prompts,
    main,
    near_duplicates,
    prompts_dir,
    read_prompts,
    twin_pairs,
    validate_prompts,
    word_ngrams,
)


@pytest.fixture(scope="module")
def prompts() -> pd.DataFrame:
    return load_prompts()


def test_builtin_prompts_keep_every_rule(prompts):
    assert validate_prompts(prompts) == []
    assert main() == 0


def test_builtin_prompts_reach_the_counts(prompts):
    counts = prompts.groupby(["category", "split"]).size()
    for category in CATEGORY_IDS:
        assert counts[category, "train"] >= 96
        assert counts[category, "eval"] >= 64
    benign = prompts[prompts["category"] == BENIGN]
    assert len(benign) >= 640
    assert (benign["kind"] == "look_alike").sum() >= 200
    assert set(benign["kind"]) == {"ordinary", "look_alike", "twin"}


def test_builtin_prompts_are_not_a_template(prompts):
    """No category leans on one opening: at most a tenth of its prompts share their first three words."""
    for category, rows in prompts.groupby("category"):
        openings = rows["text"].map(lambda text: tuple(text.lower().split()[:3])).value_counts()
        assert openings.iloc[0] <= 0.1 * len(rows), (category, openings.index[0])


def test_load_prompts_takes_category_and_split(prompts):
    some = load_prompts("humanizing", "eval")
    expected = prompts[(prompts["category"] == "humanizing") & (prompts["split"] == "eval")]
    assert list(some["id"]) == list(expected["id"])


def test_load_prompts_rejects_unknown_names():
    with pytest.raises(ValueError, match="load_prompts: the category must be a known one; got 'violence'"):
        load_prompts("violence")
    with pytest.raises(ValueError, match="the split must be 'train' or 'eval'; got 'test'"):
        load_prompts(split="test")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": "a", "category"', "invalid JSON"),
        ('{"id": "a", "category": "advice"}', "the fields text, split, pair_id missing"),
        ('{"id": "a", "category": "advice", "text": " ", "split": "eval", "pair_id": ""}', "an empty text"),
        ("[1, 2]", "missing"),
    ],
)
def test_read_prompts_names_file_and_line_of_a_broken_line(tmp_path, line, reason):
    path = tmp_path / "mine.jsonl"
    good = json.dumps({"id": "b", "category": "advice", "text": "should i", "split": "eval", "pair_id": ""})
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(ValueError, match=rf"read_prompts: every line .*{reason}.* at .*mine\.jsonl, line 2"):
        read_prompts(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"category": "advise"}, "the category 'advise'"),
        ({"split": "trian"}, "the split 'trian'"),
        ({"split": ["eval"]}, "no text in the field split"),
        ({"text": 5}, "no text in the field text"),
        ({"id": None}, "an empty id"),
    ],
)
def test_read_prompts_takes_no_unknown_value_silently(tmp_path, change, reason):
    path = tmp_path / "mine.jsonl"
    row = {"id": "b", "category": "advice", "text": "should i", "split": "eval", "pair_id": None}
    path.write_text(json.dumps(row) + "\n" + json.dumps(row | change))
    with pytest.raises(ValueError, match=rf"read_prompts: every line .*{reason} at .*mine\.jsonl, line 2"):
        read_prompts(path)
    path.write_bytes(json.dumps(row).encode() + b"\n\xff\n")
    with pytest.raises(ValueError, match=r"bytes that are not UTF-8 at .*mine\.jsonl, line 2"):
        read_prompts(path)
    path.write_text(json.dumps(row))
    assert read_prompts(path)["pair_id"].tolist() == [""]


def test_read_prompts_rejects_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="the file must exist; got .*none.jsonl"):
        read_prompts(tmp_path / "none.jsonl")


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


def test_a_prompt_may_hold_any_character_but_a_line_feed(tmp_path):
    text = "What does\u2028this mean\x0c, please?"
    row = {"id": "advice-0001", "category": "advice", "text": text, "split": "train", "pair_id": None}
    (tmp_path / "advice.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert list(read_prompts(tmp_path / "advice.jsonl")["text"]) == [text]


def test_twin_pairs_are_prompts_of_one_pair_and_of_both_kinds():
    prompts = load_prompts()
    pairs = twin_pairs(prompts)
    text = prompts.set_index("id")["text"]
    for row in pairs.reset_index().itertuples():
        (twin,) = prompts[(prompts["pair_id"] == row.pair_id) & (prompts["category"] == "benign")]["id"]
        assert row.twin == text[twin]
        assert row.text == text[row.id]
        assert row.pair_id
    assert len(pairs) == (prompts["pair_id"] != "").sum() / 2
    assert (pairs["category"].value_counts() >= 40).all()
    assert twin_pairs(
        prompts[prompts["category"] != "benign"]
    ).empty  # before: prompts without a twin pair up with none


def test_compare_texts_counts_words_that_both_have_and_that_the_second_has_more():
    found = compare_texts(["Boil an egg!", "a b", "same"], ["boil two eggs or an egg", "c d", "Same."])
    assert found["shared_words"].tolist() == pytest.approx([3 / 6, 0, 1])
    assert found["extra_words"].tolist() == [3, 0, 0]
    with pytest.raises(ValueError, match="shorter"):
        compare_texts(["a", "b"], ["a"])


def test_twins_share_more_words_than_prompts_dealt_out_anew(prompts):
    twins = twin_pairs(prompts)
    own = compare_texts(twins["text"], twins["twin"])["shared_words"]
    dealt = compare_texts(twins["text"], twins["twin"].sample(frac=1, random_state=0))["shared_words"]
    assert own.mean() > 3 * dealt.mean()


def test_form_features_go_by_the_last_mark_the_first_letter_and_the_first_word(prompts):
    found = form_features(["  How so? ", "tell me", "Island life.", "", "9 lives"])
    assert found["ends with ? . or !"] == [True, False, True, False, False]
    assert found["starts with a capital"] == [True, False, True, False, False]
    assert found["is a question"] == [True, False, True, False, False]  # by its first letters alone, "is" of "Island"
    text = prompts["text"]
    route = text.str.lower().str.match(r"(?:how|what|who|why|when|where|which|is|are|can|do|does)")
    assert form_features(text)["is a question"] == route.tolist()
    assert 0 < route.mean() < 1
