"""Twins: benign prompts with the topic and form of a prompt that should be refused, and how close the two are."""

from dataclasses import dataclass
from numbers import Integral

import pandas as pd

from ..checks import require, require_columns, require_types
from .categories import BENIGN, CATEGORY_IDS
from .text_features import jaccard, words_of

ANY_TWO = "(any two prompts)"


def twin_pairs(prompts: pd.DataFrame) -> pd.DataFrame:
    """The prompts whose benign twin is also among `prompts`, indexed by pair_id, with its text in the column `twin`."""
    require_columns("twin_pairs", prompts, "category", "text", "pair_id")
    paired = prompts[prompts["pair_id"] != ""].drop_duplicates(["pair_id", "category"])
    benign = paired[paired["category"] == BENIGN].set_index("pair_id")["text"]
    own = paired[(paired["category"] != BENIGN) & paired["pair_id"].isin(benign.index)].set_index("pair_id")
    return own.assign(twin=benign.reindex(own.index))


def contrast_pairs(prompts: pd.DataFrame, n: int, seed: int = 0) -> pd.DataFrame:
    """Up to `n` random prompts of every category, and a benign prompt for each: its twin, or else any one.

    Columns id, text, category (of the pair), pair (its number) and harmful. The first half of the rows are the prompts
    that should be refused, the second their contrasts in the same order. Raises `ValueError` if there are fewer than
    two pairs.
    """
    require_types("contrast_pairs", (Integral,), n=n)
    require_columns("contrast_pairs", prompts, "id", "category", "text", "pair_id")
    mixed = prompts.sample(frac=1, random_state=seed)
    benign, asked = mixed[mixed["category"] == BENIGN], mixed[mixed["category"] != BENIGN]
    twins = benign[benign["pair_id"] != ""].drop_duplicates("pair_id").set_index("pair_id", drop=False)
    asked = asked[asked["pair_id"].eq("") | ~asked["pair_id"].duplicated()]
    twins_first = asked["pair_id"].isin(twins.index).sort_values(ascending=False, kind="stable").index
    own = asked.loc[twins_first].groupby("category").head(n)
    paired = own["pair_id"].isin(twins.index)
    contrast = twins.loc[own.loc[paired, "pair_id"]]
    spare = benign[~benign["id"].isin(contrast["id"])].head(int((~paired).sum()))
    own = pd.concat([own[paired], own[~paired].head(len(spare))])
    must, todo = "there must be at least two pairs of a prompt and a benign one", "Pass more prompts."
    require(len(own) >= 2, "contrast_pairs", must, len(own), todo)
    numbered = {"category": own["category"].to_numpy(), "pair": range(len(own))}
    sides = [
        side[["id", "text"]].assign(**numbered, harmful=side is own) for side in (own, pd.concat([contrast, spare]))
    ]
    return pd.concat(sides, ignore_index=True)


@dataclass(frozen=True)
class TwinComparison:
    """Word overlap between prompts and their twins, and as a control between prompts and other prompts' twins.

    Both frames have one row per pair: shared_words (Jaccard overlap of the sets of words), extra_words (how many more
    words the twin has) and category.
    """

    pairs: pd.DataFrame
    shuffled: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Number of pairs, mean shared_words and median extra_words by category; the last row is the control."""
        rows = pd.concat([self.pairs, self.shuffled.assign(category=ANY_TWO)]).groupby("category")
        table = rows.agg(
            pairs=("shared_words", "size"), shared_words=("shared_words", "mean"), extra_words=("extra_words", "median")
        )
        return table.reindex([name for name in (*CATEGORY_IDS, ANY_TWO) if name in table.index])


def compare_twins(prompts: pd.DataFrame, seed: int = 0) -> TwinComparison:
    """How close the twins among `prompts` are; the control gives each prompt the twin of a random other one."""
    twins = twin_pairs(prompts)
    others = twins["twin"].sample(frac=1, random_state=seed).to_numpy()
    return TwinComparison(_overlap(twins), _overlap(twins.assign(twin=others)))


def _overlap(twins: pd.DataFrame) -> pd.DataFrame:
    words = [(words_of(own), words_of(twin)) for own, twin in zip(twins["text"], twins["twin"], strict=True)]
    return pd.DataFrame(
        {
            "shared_words": [jaccard(set(own), set(twin)) for own, twin in words],
            "extra_words": [len(twin) - len(own) for own, twin in words],
            "category": twins["category"].to_numpy(),
        }
    )
