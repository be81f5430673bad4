"""Every published number of Tables 1, 2, 8, 10, 11 and 12, matched with ours from the notebooks' files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..checks import require
from ..prompts.categories import category_by_id
from ..stats import wilson
from .setting import GEMMA, LLAMA, N_PAPER, Setting
from .tables import TABLE7_SOURCE, folded, published_cosines, published_gaps, published_table

INTERVALS, STABILITY = "03_intervals.csv", "03_stability_table.csv"
ORACLES, RATES = "04_oracle_buckets.csv", "07_rates.csv"
RATE_NAMES = {"RR": ("refusal_rate", 100), "ORR": ("over_refusal_rate", 100), "accuracy": ("accuracy", 200)}
# The columns that each file must have.
NEEDED = {
    INTERVALS: ("first", "second", "raw", "corrected", "low", "high"),
    STABILITY: ("category", "split half mean", "split half std", "n"),
    ORACLES: ("contrast", "reference", "mean", "std", "n", "judge", "draw"),
    RATES: (
        *("direction", "gaps", "intervention", "coefficient", "judge", "draw"),
        *(f"{rate}{end}" for rate in RATE_NAMES for end in ("", " low", " high")),
    ),
}
CONTRASTS = {"HR-BC": "hr_bc", "BR-BC": "br_bc", "HR-HC": "hr_hc"}
REFERENCES = {  # Table 10's names for the contrasts of all prompts and of XSTest's prompts
    "Train HR-BC (all train)": "HR-BC",
    "Train HR-HC (all train)": "HR-HC",
    "Gold HR-BC (XSTest)": "XSTest HR-BC",
    "Gold HR-HC (XSTest)": "XSTest HR-HC",
}


Estimate = tuple[float, float, float]  # a number and the ends of its 95 % interval, or itself three times


@dataclass(frozen=True)
class Match:
    """A published number, and ours unless it is missing.

    `published`: the setting of the paper's number. `file`: where ours is written. `apart`: why the two are not
    comparable, apart from their settings. `caveat`: a note that does not affect the verdict.
    """

    table: str
    quantity: str
    about: str
    condition: str
    theirs: Estimate
    published: Setting
    file: str
    ours: Estimate | None = None
    apart: str = ""
    caveat: str = ""


def find_matches(folder: Path, setting: Setting) -> list[Match]:
    """One match per published number. Raises `ValueError` if a file of ours lacks a column."""
    return [
        *_cosines(read_ours(folder, INTERVALS, NEEDED[INTERVALS]), setting),
        *_stability(read_ours(folder, STABILITY, NEEDED[STABILITY])),
        *_oracles(read_ours(folder, ORACLES, NEEDED[ORACLES]), setting),
        *_rates(read_ours(folder, RATES, NEEDED[RATES]), setting),
    ]


def _cosines(ours: pd.DataFrame, setting: Setting) -> Iterator[Match]:
    """Table 1: plain cosines of all pairs; our interval is that of the corrected cosine, shifted to the plain one."""
    published = published_cosines()
    for first, second in combinations(published.index, 2):
        about = f"{category_by_id(first).title} / {category_by_id(second).title}"
        mine = find_row(ours, first=first, second=second) or find_row(ours, first=second, second=first)
        value, apart = None, ""
        if mine:
            low, high = (mine["raw"] + mine[end] - mine["corrected"] for end in ("low", "high"))
            value, apart = (mine["raw"], low, high), _other_size(setting.n_prompts)
        yield Match("1", "cosine", about, "", (published.loc[first, second],) * 3, GEMMA, INTERVALS, value, apart)


def _stability(ours: pd.DataFrame) -> Iterator[Match]:
    """Table 8: the cosine between directions of one category from different draws of prompts."""
    ids = {folded(source): category for category, source in TABLE7_SOURCE.items()}
    for row in published_table(8).itertuples():
        category = ids.get(folded(row.category))
        about = category_by_id(category).title if category else row.category
        value, apart = None, ""
        if mine := find_row(ours, category=category or row.category):
            value, apart = spread(mine["split half mean"], mine["split half std"]), _other_size(mine["n"])
        yield Match("8", "cosine within", about, "", spread(row.mean, row.std), GEMMA, STABILITY, value, apart)


def _oracles(ours: pd.DataFrame, setting: Setting) -> Iterator[Match]:
    """Table 10: directions from few prompts, by contrast, compared with those from all."""
    for row in published_table(10).to_dict("records"):
        for contrast, stem in CONTRASTS.items():
            if pd.isna(row[f"{stem}_mean"]):
                continue
            theirs = spread(row[f"{stem}_mean"], row[f"{stem}_std"])
            value, apart, caveat = None, "", ""
            if mine := find_row(ours, reference=REFERENCES[row["reference_oracle"]], contrast=contrast):
                value, caveat = spread(mine["mean"], mine["std"]), other_judge(mine)
                apart = join_reasons(_other_size(mine["n"]), *setting.other_draw(mine["draw"], ORACLES[:2]))
            about = f"{contrast} against {row['reference_oracle']}"
            yield Match("10", "cosine", about, "", theirs, GEMMA, ORACLES, value, apart, caveat)


def _rates(ours: pd.DataFrame, setting: Setting) -> Iterator[Match]:
    """Tables 2, 11 and 12: refusal, over-refusal and accuracy under every intervention."""
    tables = [
        published_table(2).assign(table="2"),
        published_table(11).assign(table="11", model=LLAMA.model, intervention="steered"),
        published_table(12).assign(table="12", model=GEMMA.model, intervention="steered"),
    ]
    for row in pd.concat(tables).to_dict("records"):
        published = GEMMA if row["model"] == GEMMA.model else LLAMA
        mine, apart = _same_strength(ours, row, setting, published) if len(ours) else (None, "")
        caveat = other_judge(mine) if mine else ""
        apart = join_reasons(apart, *setting.other_draw(mine["draw"], RATES[:2])) if mine else apart
        strength = f", alpha {row['alpha']:g}" if row["intervention"] == "steered" else ""
        condition = f"{row['model']}, {row['intervention']}{strength}"
        for rate, (column, n) in RATE_NAMES.items():
            value = (mine[rate], mine[f"{rate} low"], mine[f"{rate} high"]) if mine else None
            theirs = (row[column], *wilson(round(row[column] * n), n))
            about = category_by_id(row["category"]).title
            yield Match(row["table"], rate, about, condition, theirs, published, RATES, value, apart, caveat)


def _same_strength(
    ours: pd.DataFrame, row: dict[str, Any], setting: Setting, published: Setting
) -> tuple[dict[str, Any] | None, str]:
    """(our row under the paper's intervention, how its strength differs).

    On the paper's model at its layer a coefficient has the same meaning. Elsewhere strengths are compared in gaps (the
    distance between the two sides), which are published for Gemma only; our nearest strength counts if it is within a
    factor of two.
    """
    own = ours[(ours["direction"] == row["category"]) & (ours["intervention"] == row["intervention"])]
    alpha = row["alpha"]
    if row["intervention"] == "steered":
        if not alpha:
            own = own[own["gaps"] == 0]
        elif not setting.elsewhere(published):
            own = own[np.isclose(own["coefficient"], alpha, rtol=0.01)]
        elif published is LLAMA:
            return None, "strengths are in the model's own units"
        else:
            return _nearest(own, alpha / published_gaps()[row["category"]])
    return (own.iloc[0].to_dict() if len(own) else None), ""


def _nearest(own: pd.DataFrame, gaps: float) -> tuple[dict[str, Any] | None, str]:
    ratio = np.log2((own["gaps"].clip(lower=0) / gaps).replace(0, np.nan)).abs()
    if not ratio.min() <= 1:
        return None, f"no strength near {gaps:.2f} gaps"
    nearest = own.loc[ratio.idxmin()].to_dict()
    return nearest, f"ours at {nearest['gaps']:.2f} gaps, theirs at {gaps:.2f}"


def find_row(ours: pd.DataFrame, **keys: object) -> dict[str, Any] | None:
    """The first row of ours with these values in these columns, if there is one."""
    rows = ours[np.logical_and.reduce([ours[name] == key for name, key in keys.items()])]
    return rows.iloc[0].to_dict() if len(rows) else None


def read_ours(folder: Path, file: str, needed: Sequence[str]) -> pd.DataFrame:
    """The rows of a file of ours; none if it is missing. Raises `ValueError` if it lacks a column."""
    frame = pd.read_csv(folder / file) if (folder / file).is_file() else pd.DataFrame(columns=[*needed])
    missing = [name for name in needed if name not in frame]
    must, todo = f"{file} must have columns {', '.join(needed)}", f"Run notebook {file[:2]} again."
    require(not missing, "compare", must, f"none called {', '.join(missing)}", todo)
    return frame


def _other_size(n: int) -> str:
    """Why cosines from `n` prompts a side are not comparable: with fewer prompts, noise pulls them towards zero."""
    return "" if n == N_PAPER else f"{n:.0f} prompts a side, theirs {N_PAPER}"


def other_judge(mine: dict[str, Any]) -> str:
    """Who judged our responses, if it was not WildGuard, the paper's judge."""
    return "" if mine["judge"] == "wildguard" else f"judged by {mine['judge']}, theirs by WildGuard"


def join_reasons(*parts: str) -> str:
    """The reasons that are not empty, in one text."""
    return "; ".join(part for part in parts if part)


def spread(mean: float, std: float) -> Estimate:
    """A mean with an interval of 1.96 standard deviations to each side."""
    return mean, mean - 1.96 * std, mean + 1.96 * std
