"""A sweep's numbers in tables to read: pairs of directions by kind, rates after so many tokens."""

from collections.abc import Mapping

import pandas as pd

from .tradeoffs import rate_table


def pairs_by_kind(tests: pd.DataFrame, kinds: Mapping[str, str]) -> pd.DataFrame:
    """How many pairs of each two kinds got each verdict of `curves.knob_test`, and the median of their largest gaps.

    `kinds` gives the kind of every direction. Rows `kind / kind`, the later one in the alphabet first; the median is
    NaN where no pair could be compared.
    """
    both = zip(tests["first"].map(kinds), tests["second"].map(kinds), strict=True)
    pair = pd.Series([" / ".join(sorted(each, reverse=True)) for each in both], tests.index, name="pair")
    return pd.crosstab(pair, tests["verdict"]).assign(**{"median gap": tests.groupby(pair)["gap"].median()})


def rates_by_length(rows: Mapping[int, pd.DataFrame], by: str) -> pd.DataFrame:
    """RR, ORR and the degenerate share after so many tokens (keys of `rows`), and how many verdicts still change.

    Each value holds the rows of `tradeoffs.sweep` for the same responses cut at that length, in the same order. Indexed
    by (tokens, `by`). "verdicts that change": the share whose outcome is another one at the largest length.
    """
    last = rows[max(rows)]["outcome"]
    tables = {n: rate_table(each, by)[["RR", "ORR", "degenerate"]] for n, each in rows.items()}
    moved = {n: (each["outcome"] != last).groupby(each[by]).mean() for n, each in rows.items()}
    return pd.concat(tables, names=["tokens"]).assign(**{"verdicts that change": pd.concat(moved)})
