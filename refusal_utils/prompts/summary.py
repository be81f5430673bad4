"""What kinds of prompts there are, how many of each, how long they are, and how they are written."""

from dataclasses import dataclass

import pandas as pd

from ..checks import require_columns
from .categories import ALL_CATEGORIES, CATEGORIES
from .text_features import folded, form_features


@dataclass(frozen=True)
class PromptSummary:
    """Sizes, lengths and form of the prompts of each category and of the benign ones.

    `kinds` has title, cluster and definition of each category; `sizes` cluster, eval, train and with_twin; `words` one
    row per prompt (category, words); `forms` the share of prompts with each of the `form_features`.
    """

    kinds: pd.DataFrame
    sizes: pd.DataFrame
    words: pd.DataFrame
    forms: pd.DataFrame
    n_shared_texts: int  # texts that occur in both splits

    def lengths(self) -> pd.DataFrame:
        """Mean, quartiles and maximum of the number of words by category."""
        described = self.words.groupby("category")["words"].describe()
        return described.loc[list(self.sizes.index), ["mean", "25%", "50%", "75%", "max"]]


def summarize_prompts(prompts: pd.DataFrame) -> PromptSummary:
    """The summary of `prompts` (columns of `load_prompts`)."""
    require_columns("summarize_prompts", prompts, "category", "split", "text", "pair_id")
    kinds = pd.DataFrame(CATEGORIES).set_index("id")[["title", "cluster", "definition"]]
    counts = prompts.groupby(["category", "split"]).size().unstack(fill_value=0)
    sizes = counts.reindex(index=list(ALL_CATEGORIES), columns=["eval", "train"], fill_value=0)
    sizes["with_twin"] = prompts[prompts["pair_id"] != ""].groupby("category").size()
    sizes.insert(0, "cluster", [*kinds["cluster"], "-"])
    words = prompts[["category"]].assign(words=prompts["text"].str.split().str.len())
    forms = pd.DataFrame(form_features(prompts["text"])).groupby(prompts["category"].to_numpy()).mean()
    train, held_out = (set(prompts.loc[prompts["split"] == split, "text"].map(folded)) for split in ("train", "eval"))
    return PromptSummary(kinds, sizes, words, forms.loc[list(sizes.index)], len(train & held_out))
