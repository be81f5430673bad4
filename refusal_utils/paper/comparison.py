"""Every number of ours beside the paper's: difference, interval and verdict, for Tables 1, 2, 8, 10, 11 and 12.

Numbers are read from what the notebooks wrote; nothing is computed anew. The interval of a difference adds the two
sides' intervals in squares (Newcombe 1998), so where the paper gives none, "agrees" says that its number lies in our
interval. The interval of a mean with a standard deviation is 1.96 of it on each side, on both sides; theirs of a rate is
Wilson's for the 100 harmful, 100 benign or 200 prompts of the controlled set.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..prompts.categories import category_by_id
from ..stats import wilson
from .setting import GEMMA, LLAMA, N_PAPER, Setting, read_setting
from .tables import TABLE7_SOURCE, published_cosines, published_gaps, published_table

AGREES, DIFFERS, NOT_COMPARABLE, MISSING = VERDICTS = ("agrees", "differs", "not comparable", "missing")
INTERVALS, STABILITY = "03_intervals.csv", "03_stability_table.csv"
ORACLES, RATES = "03_oracle_buckets.csv", "06_rates.csv"
# The columns that each file must have; rates are those of `tradeoffs.rate_table`, with their Wilson intervals. These may
# also have `coefficient` (else no strength is the paper's) and `intervention` (steered, which it is otherwise, or ablated).
# `n` of the stability table and of the oracles says how many prompts a side each draw had.
NEEDED = {
    INTERVALS: ("first", "second", "raw", "corrected", "low", "high"),
    STABILITY: ("category", "split half mean", "split half std"),
    ORACLES: ("contrast", "reference", "mean", "std"),
    RATES: (
        "direction",
        "gaps",
        *(f"{rate}{end}" for rate in ("RR", "ORR", "accuracy") for end in ("", " low", " high")),
    ),
}
RATE_NAMES = {"RR": ("refusal_rate", 100), "ORR": ("over_refusal_rate", 100), "accuracy": ("accuracy", 200)}
CONTRASTS = {"HR-BC": "hr_bc", "BR-BC": "br_bc", "HR-HC": "hr_hc"}
REFERENCES = {  # what Table 10 calls the contrasts of all prompts, and of XSTest's
    "Train HR-BC (all train)": "HR-BC",
    "Train HR-HC (all train)": "HR-HC",
    "Gold HR-BC (XSTest)": "XSTest HR-BC",
    "Gold HR-HC (XSTest)": "XSTest HR-HC",
}
_UNLESS_SAID = {"intervention": "steered", "coefficient": np.nan}
_KEY = ["table", "quantity", "about", "condition"]


def compare(folder: str | Path, model: str) -> pd.DataFrame:
    """One row per published number: ours of `folder` (a model's figures) beside it, and a verdict.

    Columns table, quantity, about, condition, ours, low, high, theirs, theirs low, theirs high, difference, difference
    low, difference high, verdict, note. A number of ours that is not there gives "missing" and the file it would stand
    in. Raises `ValueError` for a file without its columns.
    """
    folder = Path(folder)
    setting = read_setting(folder, model)
    makers: list[tuple[Callable[..., pd.DataFrame], str]] = [
        *((_cosines, INTERVALS), (_stability, STABILITY), (_oracles, ORACLES), (_rates, RATES))
    ]
    frame = pd.concat(
        [make(_read(folder, file), setting).assign(file=file) for make, file in makers], ignore_index=True
    )
    frame = frame.join(pd.DataFrame([_judge(row) for row in frame.to_dict("records")], index=frame.index))
    frame["number"] = frame["table"].astype(int)
    first = [*_KEY, "ours", "low", "high", "theirs", "theirs low", "theirs high", "difference"]
    last = ["difference low", "difference high", "verdict", "note"]
    return frame.sort_values("number", kind="stable", ignore_index=True)[[*first, *last]]


def difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Ours less theirs, and its interval; both are (value, low, high). Source: Newcombe 1998, method 10.

    >>> [round(value, 2) for value in difference((0.5, 0.4, 0.6), (0.8, 0.8, 0.8))]
    [-0.3, -0.4, -0.2]
    """
    value = ours[0] - theirs[0]
    down = np.hypot(ours[0] - ours[1], theirs[2] - theirs[0])
    up = np.hypot(ours[2] - ours[0], theirs[0] - theirs[1])
    return value, value - float(down), value + float(up)


def _judge(row: dict[str, Any]) -> dict[str, Any]:
    empty = dict.fromkeys(("difference", "difference low", "difference high"), np.nan)
    if pd.isna(row["ours"]):
        if row["apart"]:
            return {**empty, "verdict": NOT_COMPARABLE, "note": row["apart"]}
        return {**empty, "verdict": MISSING, "note": f"not in {row['file']} of notebook {row['file'][:2]}"}
    found = difference(
        [row[name] for name in ("ours", "low", "high")], [row[f"theirs{n}"] for n in ("", " low", " high")]
    )
    reasons = [*row["against"], *([row["apart"]] if row["apart"] else [])]
    verdict = NOT_COMPARABLE if reasons else AGREES if found[1] <= 0 <= found[2] else DIFFERS
    note = _join(*reasons, row["caveat"])
    return {**dict(zip(empty, found, strict=True)), "verdict": verdict, "note": note}


def _cosines(ours: pd.DataFrame | None, setting: Setting) -> pd.DataFrame:
    """Table 1: the plain cosines of all pairs; our interval is that of the corrected one, moved to the plain one."""
    published, rows = published_cosines(), []
    apart = _other_size(setting.n_prompts)
    for first, second in combinations(published.index, 2):
        about = f"{category_by_id(first).title} / {category_by_id(second).title}"
        mine = _find(ours, first=first, second=second) or _find(ours, first=second, second=first)
        values = (
            [mine["raw"] + mine[name] - mine["corrected"] for name in ("corrected", "low", "high")] if mine else None
        )
        theirs = (published.loc[first, second],) * 3
        rows.append(_row("1", "cosine", about, "", values, theirs, setting, GEMMA, apart if mine else ""))
    return pd.DataFrame(rows)


def _stability(ours: pd.DataFrame | None, setting: Setting) -> pd.DataFrame:
    """Table 8: the cosine between directions of one category from different draws of prompts."""
    ids = {_plain(source): category for category, source in TABLE7_SOURCE.items()}
    rows = []
    for row in published_table(8).itertuples():
        category = ids.get(_plain(row.category))
        about = category_by_id(category).title if category else str(row.category)
        mine = _find(ours, category=category or row.category)
        values = _spread(mine["split half mean"], mine["split half std"]) if mine else None
        theirs, apart = _spread(row.mean, row.std), _other_size(mine.get("n")) if mine else ""
        rows.append(_row("8", "cosine within", about, "", values, theirs, setting, GEMMA, apart))
    return pd.DataFrame(rows)


def _oracles(ours: pd.DataFrame | None, setting: Setting) -> pd.DataFrame:
    """Table 10: directions of few prompts, by contrast, against those of all."""
    rows = []
    for row in published_table(10).to_dict("records"):
        for contrast, stem in CONTRASTS.items():
            if pd.notna(row[f"{stem}_mean"]):
                mine = _find(ours, reference=REFERENCES[row["reference_oracle"]], contrast=contrast)
                values = _spread(mine["mean"], mine["std"]) if mine else None
                theirs = _spread(row[f"{stem}_mean"], row[f"{stem}_std"])
                about = f"{contrast} against {row['reference_oracle']}"
                apart = _join(_other_size(mine.get("n")), *setting.other_draw(mine, "03")) if mine else ""
                found = _row("10", "cosine", about, "", values, theirs, setting, GEMMA, apart)
                rows.append(found | {"caveat": _other_judge(mine)})
    return pd.DataFrame(rows)


def _rates(ours: pd.DataFrame | None, setting: Setting) -> pd.DataFrame:
    """Tables 2, 11 and 12: refusal, over-refusal and accuracy under every intervention."""
    if ours is not None:
        ours = ours.assign(**{name: ours.get(name, value) for name, value in _UNLESS_SAID.items()})
    tables = [
        published_table(2).assign(table="2"),
        published_table(11).assign(table="11", model=LLAMA.model, intervention="steered"),
        published_table(12).assign(table="12", model=GEMMA.model, intervention="steered"),
    ]
    rows = []
    for row in pd.concat(tables).to_dict("records"):
        theirs = GEMMA if row["model"] == GEMMA.model else LLAMA
        mine, apart = (None, "") if ours is None else _same_strength(ours, row, setting, theirs)
        apart = _join(apart, *setting.other_draw(mine, "06")) if mine else apart
        steered = row["intervention"] == "steered"
        condition = f"{row['model']}, {row['intervention']}" + (f", alpha {row['alpha']:g}" if steered else "")
        for rate, (column, n) in RATE_NAMES.items():
            values = None if mine is None else [mine[f"{rate}{end}"] for end in ("", " low", " high")]
            printed = (row[column], *wilson(round(row[column] * n), n))
            about = category_by_id(row["category"]).title
            found = _row(row["table"], rate, about, condition, values, printed, setting, theirs, apart)
            rows.append(found | {"caveat": _other_judge(mine)})
    return pd.DataFrame(rows)


def _same_strength(
    ours: pd.DataFrame, row: dict[str, Any], setting: Setting, theirs: Setting
) -> tuple[dict[str, Any] | None, str]:
    """Our row under the paper's intervention, and what sets its strength apart.

    On the paper's model at its layer a coefficient means the same. Elsewhere the nearest strength within a factor of
    two is taken, as a share of the distance between the two sides, which is published for Gemma.
    """
    own = ours[(ours["direction"] == row["category"]) & (ours["intervention"] == row["intervention"])]
    same_model = not setting.elsewhere(theirs)
    alpha = row["alpha"]
    if row["intervention"] == "steered":
        same = np.isclose(own["coefficient"], alpha, rtol=0.01) if alpha else own["gaps"] == 0
        if same_model or not alpha:
            own = own[same]
        elif theirs is LLAMA:
            return None, "strengths are in the model's own units"
        else:
            gaps = alpha / published_gaps()[row["category"]]
            ratio = np.log2((own["gaps"].clip(lower=0) / gaps).replace(0, np.nan)).abs()
            if not ratio.min() <= 1:
                return None, f"no strength near {gaps:.2f} gaps"
            nearest = own.loc[ratio.idxmin()]
            return nearest.to_dict(), f"ours at {nearest['gaps']:.2f} gaps, theirs at {gaps:.2f}"
    return (own.iloc[0].to_dict() if len(own) else None), ""


def _row(
    table: str,
    quantity: str,
    about: str,
    condition: str,
    ours: Sequence[float] | None,
    theirs: Sequence[float],
    setting: Setting,
    published: Setting,
    apart: str = "",
) -> dict[str, Any]:
    names = ("ours", "low", "high", "theirs", "theirs low", "theirs high")
    values = dict(zip(names, (*(ours or (np.nan,) * 3), *theirs), strict=True))
    against = setting.reasons_against(published)
    return (
        dict(zip(_KEY, (table, quantity, about, condition), strict=True))
        | values
        | {"against": against, "apart": apart, "caveat": ""}
    )


def _find(ours: pd.DataFrame | None, **keys: object) -> dict[str, Any] | None:
    if ours is None:
        return None
    rows = ours[np.logical_and.reduce([ours[name] == key for name, key in keys.items()])]
    return rows.iloc[0].to_dict() if len(rows) else None


def _read(folder: Path, file: str) -> pd.DataFrame | None:
    if not (folder / file).is_file():
        return None
    frame = pd.read_csv(folder / file)
    missing = [name for name in NEEDED[file] if name not in frame]
    if missing:
        raise ValueError(
            f"compare: {file} must have columns {', '.join(NEEDED[file])}; got none called {', '.join(missing)}. "
            f"Run notebook {file[:2]} again."
        )
    return frame


def _other_size(n: float | int | None) -> str:
    """What sets cosines of `n` prompts a side apart: the fewer, the more noise pulls them towards zero."""
    size = 0 if n is None or pd.isna(n) else int(n)
    return "" if size == N_PAPER else f"{size or 'an unknown number of'} prompts a side, theirs {N_PAPER}"


def _other_judge(mine: dict[str, Any] | None) -> str:
    """Whose verdicts ours rest on, where not on those of the paper's judge: said beside a number, it decides no verdict."""
    judge = (mine or {}).get("judge")
    if not mine or judge == "wildguard":
        return ""
    return f"judged by {'an unknown judge' if judge is None or pd.isna(judge) else judge}, theirs by WildGuard"


def _join(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _spread(mean: float, std: float) -> tuple[float, float, float]:
    return mean, mean - 1.96 * std, mean + 1.96 * std


def _plain(source: object) -> str:
    return str(source).lower().replace(" ", "")
