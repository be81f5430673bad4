"""How many prompts there are of each kind, and how long they are."""

from dataclasses import dataclass

import pandas as pd

from .categories import ALL_CATEGORIES, CATEGORIES


@dataclass(frozen=True)
class PromptSummary:
    """Sizes and lengths of the prompts of each category and of the benign ones.

    `sizes` has the columns cluster, eval, train and with_twin; `words` has one row per prompt (category, words).
    """

    sizes: pd.DataFrame
    words: pd.DataFrame
    n_shared_texts: int  # texts that occur in both splits

    def lengths(self) -> pd.DataFrame:
        """Mean, quartiles and maximum of the number of words by category."""
        described = self.words.groupby("category")["words"].describe()
        return described.loc[list(self.sizes.index), ["mean", "25%", "50%", "75%", "max"]]


def summarize_prompts(prompts: pd.DataFrame) -> PromptSummary:
    """The summary of `prompts` (columns of `load_prompts`)."""
    counts = prompts.groupby(["category", "split"]).size().unstack(fill_value=0)
    sizes = counts.reindex(index=list(ALL_CATEGORIES), columns=["eval", "train"], fill_value=0)
    sizes["with_twin"] = prompts[prompts["pair_id"] != ""].groupby("category").size()
    sizes.insert(0, "cluster", [*(category.cluster for category in CATEGORIES), "-"])
    words = prompts[["category"]].assign(words=prompts["text"].str.split().str.len())
    train, held_out = (set(prompts.loc[prompts["split"] == split, "text"]) for split in ("train", "eval"))
    return PromptSummary(sizes, words, len(train & held_out))
