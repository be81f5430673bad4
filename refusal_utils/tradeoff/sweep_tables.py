"""A sweep's numbers in tables to read: pairs of directions by kind and margin, how far curves part, rates after so many tokens."""

from collections.abc import Mapping

import pandas as pd

from .sweep import rate_table


def pairs_by_kind(tests: pd.DataFrame, kinds: Mapping[str, str]) -> pd.DataFrame:
    """How many pairs of each two kinds got each verdict of `curves.knob_test`, and the median of their largest differences.

    `kinds` gives the kind of every direction. Rows `kind / kind`, the later one in the alphabet first; the median is
    NaN where no pair could be compared.
    """
    pair = _pair_kinds(tests, kinds)
    medians = tests.groupby(pair)["gap"].median()
    return pd.crosstab(pair, tests["verdict"]).assign(**{"median largest difference": medians})


def equivalent_pairs(tests: Mapping[float, pd.DataFrame], kinds: Mapping[str, str]) -> pd.DataFrame:
    """How many pairs of each two kinds could be compared, and how many of these are equivalent within each margin.

    `tests` holds the table of `curves.knob_test` for every margin (keys), of the same pairs; `kinds` and rows are those
    of `pairs_by_kind`. Columns pairs, compared, and `within <margin>`.
    """
    first = next(iter(tests.values()))
    pair = _pair_kinds(first, kinds)
    found = {"pairs": pair.value_counts(), "compared": first["gap"].notna().groupby(pair).sum()}
    found |= {
        f"within {margin:g}": (table["verdict"] == "equivalent").groupby(_pair_kinds(table, kinds)).sum()
        for margin, table in tests.items()
    }
    return pd.DataFrame(found).rename_axis("pair")


def _pair_kinds(tests: pd.DataFrame, kinds: Mapping[str, str]) -> pd.Series:
    both = zip(tests["first"].map(kinds), tests["second"].map(kinds), strict=True)
    return pd.Series([" / ".join(sorted(each, reverse=True)) for each in both], tests.index, name="pair")


def departures(rates: pd.DataFrame, strength: str = "gaps", max_degenerate: float = 0.1) -> pd.Series:
    """RR minus the overall refusal rate, (RR - ORR) / 2, of every steered row of `tradeoffs.rate_table` whose text holds.

    `strength` is the level of the index that is 0 for the unsteered model. Rows with more than `max_degenerate` broken
    text are left out, as `curves.as_sweep` leaves them out of a curve. No two curves can lie further apart than from the
    lowest of these numbers (or 0, of the unsteered model) to the highest (or 0): the lines between points do not leave it.
    """
    counted = (rates.index.get_level_values(strength) != 0) & (rates["degenerate"] <= max_degenerate)
    return ((rates["RR"] - rates["ORR"]) / 2)[counted].rename("RR - overall")


def rates_by_length(rows: Mapping[int, pd.DataFrame], by: str) -> pd.DataFrame:
    """RR, ORR and the degenerate share after so many tokens (keys of `rows`), and how many verdicts still change.

    Each value holds the rows of `tradeoffs.sweep` for the same responses cut at that length, in the same order. Indexed
    by (tokens, `by`). "verdicts that change": the share whose outcome is another one at the largest length.
    """
    last = rows[max(rows)]["outcome"]
    tables = {n: rate_table(each, by)[["RR", "ORR", "degenerate"]] for n, each in rows.items()}
    moved = {n: (each["outcome"] != last).groupby(each[by]).mean() for n, each in rows.items()}
    return pd.concat(tables, names=["tokens"]).assign(**{"verdicts that change": pd.concat(moved)})
