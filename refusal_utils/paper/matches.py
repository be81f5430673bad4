"""Every published number of Tables 1, 2, 8, 10, 11 and 12, matched with ours from the notebooks' files."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..checks import invalid
from ..prompts.categories import category_by_id
from ..stats import wilson
from .setting import GEMMA, LLAMA, N_PAPER, Setting
from .tables import TABLE7_SOURCE, published_cosines, published_gaps, published_table

INTERVALS, STABILITY = "03_intervals.csv", "03_stability_table.csv"
ORACLES, RATES = "04_oracle_buckets.csv", "07_rates.csv"
RATE_NAMES = {"RR": ("refusal_rate", 100), "ORR": ("over_refusal_rate", 100), "accuracy": ("accuracy", 200)}
# The columns that each file must have. Rates may also have `coefficient` (without it, no strength matches the paper's),
# `intervention` (steered by default, or ablated), `judge` and `draw`; stability and oracles, `n` prompts on each side.
NEEDED = {
    INTERVALS: ("first", "second", "raw", "corrected", "low", "high"),
    STABILITY: ("category", "split half mean", "split half std"),
    ORACLES: ("contrast", "reference", "mean", "std"),
    RATES: ("direction", "gaps", *(f"{rate}{end}" for rate in RATE_NAMES for end in ("", " low", " high"))),
}
CONTRASTS = {"HR-BC": "hr_bc", "BR-BC": "br_bc", "HR-HC": "hr_hc"}
REFERENCES = {  # Table 10's names for the contrasts of all prompts and of XSTest's prompts
    "Train HR-BC (all train)": "HR-BC",
    "Train HR-HC (all train)": "HR-HC",
    "Gold HR-BC (XSTest)": "XSTest HR-BC",
    "Gold HR-HC (XSTest)": "XSTest HR-HC",
}


class Estimate(NamedTuple):
    """A number and the ends of its 95 % interval, which coincide with it if the interval is unknown."""

    value: float
    low: float
    high: float


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
        *_cosines(_read(folder, INTERVALS), setting),
        *_stability(_read(folder, STABILITY)),
        *_oracles(_read(folder, ORACLES), setting),
        *_rates(_read(folder, RATES), setting),
    ]


def _cosines(ours: pd.DataFrame | None, setting: Setting) -> Iterator[Match]:
    """Table 1: plain cosines of all pairs; our interval is that of the corrected cosine, shifted to the plain one."""
    published = published_cosines()
    for first, second in combinations(published.index, 2):
        about = f"{category_by_id(first).title} / {category_by_id(second).title}"
        mine = _find(ours, first=first, second=second) or _find(ours, first=second, second=first)
        value, apart = None, ""
        if mine:
            value = Estimate(*(mine["raw"] + mine[name] - mine["corrected"] for name in ("corrected", "low", "high")))
            apart = _other_size(setting.n_prompts)
        theirs = Estimate(*(published.loc[first, second],) * 3)
        yield Match("1", "cosine", about, "", theirs, GEMMA, INTERVALS, value, apart)


def _stability(ours: pd.DataFrame | None) -> Iterator[Match]:
    """Table 8: the cosine between directions of one category from different draws of prompts."""
    ids = {_plain(source): category for category, source in TABLE7_SOURCE.items()}
    for row in published_table(8).itertuples():
        category = ids.get(_plain(row.category))
        about = category_by_id(category).title if category else str(row.category)
        mine = _find(ours, category=category or row.category)
        value = _spread(mine["split half mean"], mine["split half std"]) if mine else None
        apart = _other_size(mine.get("n")) if mine else ""
        yield Match("8", "cosine within", about, "", _spread(row.mean, row.std), GEMMA, STABILITY, value, apart)


def _oracles(ours: pd.DataFrame | None, setting: Setting) -> Iterator[Match]:
    """Table 10: directions from few prompts, by contrast, compared with those from all."""
    for row in published_table(10).to_dict("records"):
        for contrast, stem in CONTRASTS.items():
            if pd.isna(row[f"{stem}_mean"]):
                continue
            theirs = _spread(row[f"{stem}_mean"], row[f"{stem}_std"])
            mine = _find(ours, reference=REFERENCES[row["reference_oracle"]], contrast=contrast)
            value = _spread(mine["mean"], mine["std"]) if mine else None
            apart = (
                _join(_other_size(mine.get("n")), *setting.other_draw(mine.get("draw"), ORACLES[:2])) if mine else ""
            )
            about = f"{contrast} against {row['reference_oracle']}"
            yield Match("10", "cosine", about, "", theirs, GEMMA, ORACLES, value, apart, _other_judge(mine))


def _rates(ours: pd.DataFrame | None, setting: Setting) -> Iterator[Match]:
    """Tables 2, 11 and 12: refusal, over-refusal and accuracy under every intervention."""
    tables = [
        published_table(2).assign(table="2"),
        published_table(11).assign(table="11", model=LLAMA.model, intervention="steered"),
        published_table(12).assign(table="12", model=GEMMA.model, intervention="steered"),
    ]
    if ours is not None:
        ours = pd.DataFrame({"intervention": "steered", "coefficient": np.nan}, index=ours.index).assign(**ours)
    for row in pd.concat(tables).to_dict("records"):
        published = GEMMA if row["model"] == GEMMA.model else LLAMA
        mine, apart = (None, "") if ours is None else _same_strength(ours, row, setting, published)
        apart = _join(apart, *setting.other_draw(mine.get("draw"), RATES[:2])) if mine else apart
        strength = f", alpha {row['alpha']:g}" if row["intervention"] == "steered" else ""
        condition = f"{row['model']}, {row['intervention']}{strength}"
        for rate, (column, n) in RATE_NAMES.items():
            value = Estimate(*(mine[f"{rate}{end}"] for end in ("", " low", " high"))) if mine else None
            theirs = Estimate(row[column], *wilson(round(row[column] * n), n))
            about = category_by_id(row["category"]).title
            yield Match(
                row["table"], rate, about, condition, theirs, published, RATES, value, apart, _other_judge(mine)
            )


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


def _find(ours: pd.DataFrame | None, **keys: object) -> dict[str, Any] | None:
    if ours is None:
        return None
    rows = ours[np.logical_and.reduce([ours[name] == key for name, key in keys.items()])]
    return rows.iloc[0].to_dict() if len(rows) else None


def _read(folder: Path, file: str) -> pd.DataFrame | None:
    if not (folder / file).is_file():
        return None
    frame = pd.read_csv(folder / file)
    if missing := [name for name in NEEDED[file] if name not in frame]:
        must = f"{file} must have columns {', '.join(NEEDED[file])}"
        raise invalid("compare", must, f"none called {', '.join(missing)}", f"Run notebook {file[:2]} again.")
    return frame


def _other_size(n: float | int | None) -> str:
    """Why cosines from `n` prompts a side are not comparable: with fewer prompts, noise pulls them towards zero."""
    size = 0 if n is None or pd.isna(n) else int(n)
    return "" if size == N_PAPER else f"{size or 'an unknown number of'} prompts a side, theirs {N_PAPER}"


def _other_judge(mine: dict[str, Any] | None) -> str:
    """Who judged our responses, if it was not WildGuard, the paper's judge."""
    judge = (mine or {}).get("judge")
    if not mine or judge == "wildguard":
        return ""
    return f"judged by {'an unknown judge' if judge is None or pd.isna(judge) else judge}, theirs by WildGuard"


def _join(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _spread(mean: float, std: float) -> Estimate:
    return Estimate(mean, mean - 1.96 * std, mean + 1.96 * std)


def _plain(source: object) -> str:
    return str(source).lower().replace(" ", "")
