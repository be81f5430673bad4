from refusal_utils.prompts.categories import ALL_CATEGORIES, BENIGN
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.prompts.summary import summarize_prompts


def test_summarize_prompts_counts_and_measures_every_category():
    prompts = load_prompts()
    summary = summarize_prompts(prompts)
    assert list(summary.sizes.index) == list(ALL_CATEGORIES)
    assert summary.sizes[["train", "eval"]].to_numpy().sum() == len(prompts) == len(summary.words)
    assert summary.sizes.loc[BENIGN, "with_twin"] == summary.sizes["with_twin"].sum() / 2
    advice = prompts.loc[prompts["category"] == "advice", "text"]
    lengths = sorted(len(text.split()) for text in advice)
    assert summary.lengths().loc["advice", "max"] == lengths[-1]
    assert lengths[len(lengths) // 2 - 1] <= summary.lengths().loc["advice", "50%"] <= lengths[len(lengths) // 2]
    marked = [text.strip().endswith(("?", ".", "!")) for text in advice]
    assert summary.forms.loc["advice", "ends with ? . or !"] == sum(marked) / len(marked)


def test_summarize_prompts_finds_texts_that_occur_in_both_splits():
    prompts = load_prompts()
    assert summarize_prompts(prompts).n_shared_texts == 0
    twice = prompts.copy()
    both = [twice.index[twice["split"] == split][0] for split in ("train", "eval")]
    twice.loc[both, "text"] = "the same text"
    assert summarize_prompts(twice).n_shared_texts == 1
