import pandas as pd
import pytest

from refusal_utils.prompts.categories import BENIGN, CATEGORY_IDS
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.prompts.twins import ANY_TWO, compare_twins, contrast_pairs, twin_pairs


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


def pair(number: int, category: str, text: str) -> dict[str, str]:
    return {"id": f"{category}-{number}", "category": category, "text": text, "pair_id": f"p{number}"}


def test_compare_twins_counts_shared_words_and_extra_words_of_the_twin():
    texts = [("Boil an egg!", "boil two eggs or an egg"), ("a b", "c d"), ("same", "Same.")]
    rows = [
        pair(number, name, text)
        for number, both in enumerate(texts)
        for name, text in zip(("advice", BENIGN), both, strict=True)
    ]
    found = compare_twins(pd.DataFrame(rows))
    assert found.pairs["shared_words"].tolist() == pytest.approx([3 / 6, 0, 1])
    assert found.pairs["extra_words"].tolist() == [3, 0, 0]
    assert list(found.table().index) == ["advice", ANY_TWO]
    assert found.table().loc["advice"].tolist() == [3, 0.5, 0]


def test_twins_share_more_words_than_prompts_and_other_prompts_twins():
    found = compare_twins(load_prompts())
    assert found.pairs["shared_words"].mean() > 3 * found.shuffled["shared_words"].mean()
    table = found.table()
    assert list(table.index) == [*CATEGORY_IDS, ANY_TWO]
    assert table.loc[ANY_TWO, "pairs"] == table.loc[list(CATEGORY_IDS), "pairs"].sum()


def test_contrast_pairs_take_twins_first_and_then_any_benign_prompt():
    prompts = load_prompts(split="eval")
    pairs = contrast_pairs(prompts, 3)
    own, contrast = pairs[pairs["harmful"]], pairs[~pairs["harmful"]]
    known = prompts.set_index("id")
    assert own["category"].value_counts().to_dict() == dict.fromkeys(CATEGORY_IDS, 3)
    assert own["pair"].tolist() == contrast["pair"].tolist() == list(range(33))
    assert known.loc[own["id"], "pair_id"].tolist() == known.loc[contrast["id"], "pair_id"].tolist()
    assert set(known.loc[contrast["id"], "category"]) == {BENIGN}
    lonely = contrast_pairs(prompts.assign(pair_id=""), 3)
    assert lonely["id"].is_unique
    assert lonely["harmful"].sum() == 33
    with pytest.raises(ValueError, match="^contrast_pairs: there must be at least two pairs"):
        contrast_pairs(prompts[prompts["category"] != BENIGN], 3)
