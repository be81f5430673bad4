"""Our numbers compared with the paper's: difference, interval and verdict, for Tables 1 to 5, 8, 10 to 12 and 14.

Counts of latents that two lists share come from the authors' release (`latent_matches`), and the places that other
papers' searches chose are compared with those of notebook 09.

Numbers are read from the notebooks' files. The interval of a difference combines the two sides' intervals (Newcombe
1998); if the paper gives none, "agrees" means that its number lies in our interval. The interval of a mean
extends 1.96 standard deviations to each side, for ours and theirs. The interval of a published rate is Wilson's for the
100 harmful, 100 benign or 200 prompts of the controlled set.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .latent_matches import latent_matches
from .matches import Match, find_matches
from .selected_places import selection_matches
from .setting import Setting, read_setting

AGREES, DIFFERS, NOT_COMPARABLE, MISSING = VERDICTS = ("agrees", "differs", "not comparable", "missing")
_ENDS = ("", " low", " high")


@dataclass(frozen=True, eq=False)
class Comparison:
    """One row per published number, with our number and a verdict, and the setting of our numbers.

    Columns of `rows`: table, quantity, about, condition, ours, low, high, theirs, theirs low, theirs high, difference,
    difference low, difference high, verdict, note, file (where ours is written).
    """

    rows: pd.DataFrame = field(repr=False)
    setting: Setting

    def table(self) -> pd.DataFrame:
        """How often each verdict was given, by table of the paper."""
        counts = pd.crosstab(self.rows["table"], self.rows["verdict"])
        counts = counts.reindex(index=self.rows["table"].unique(), columns=list(VERDICTS), fill_value=0)
        return counts.rename_axis(index="table", columns=None)

    def by_quantity(self) -> pd.DataFrame:
        """By table, condition and quantity: means of ours and theirs, their correlation, and the verdicts.

        `numbers` counts what is published; the note is that of the first number that we have.
        """
        rows = {}
        for key, group in self.rows.groupby(["table", "condition", "quantity"], sort=False):
            known = group.dropna(subset="ours")
            varies = len(known) > 2 and (known[["ours", "theirs"]].nunique() > 1).all()
            rows[key] = {
                "numbers": len(group),
                "ours": known["ours"].mean(),
                "theirs": group["theirs"].mean(),
                "correlation": known["ours"].corr(known["theirs"]) if varies else np.nan,
                "verdict": " and ".join(group["verdict"].unique()),
                "note": (known if len(known) else group)["note"].iloc[0],
            }
        index = pd.MultiIndex.from_tuples(rows, names=["table", "condition", "quantity"])
        return pd.DataFrame([*rows.values()], index=index)


def compare(folder: str | Path, model: str) -> Comparison:
    """The comparison of the numbers in `folder` (a model's figures) with the paper's.

    If our number is missing, the verdict is "missing" and the note names its file. Raises `ValueError` if a file lacks
    a column.
    """
    return _compared(folder, model, find_matches, latent_matches, selection_matches)


def compare_latents(folder: str | Path, model: str) -> Comparison:
    """`compare` for the numbers of notebook 14 alone; files of other notebooks are not read."""
    return _compared(folder, model, latent_matches)


def _compared(folder: str | Path, model: str, *sources: Callable[[Path, Setting], Iterable[Match]]) -> Comparison:
    setting = read_setting(Path(folder), model)
    matches = [match for source in sources for match in source(Path(folder), setting)]
    matches.sort(key=lambda match: int(match.table) if match.table.isdigit() else 10**6)  # other papers' tables last
    return Comparison(pd.DataFrame([_row(match, setting) for match in matches]), setting)


def difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Ours minus theirs, with the ends of its interval; both are (value, low, high). Source: Newcombe 1998, method 10.

    >>> [round(value, 2) for value in difference((0.5, 0.4, 0.6), (0.8, 0.8, 0.8))]
    [-0.3, -0.4, -0.2]
    """
    value = ours[0] - theirs[0]
    down = np.hypot(ours[0] - ours[1], theirs[2] - theirs[0])
    up = np.hypot(ours[2] - ours[0], theirs[0] - theirs[1])
    return value, value - float(down), value + float(up)


def _row(match: Match, setting: Setting) -> dict[str, Any]:
    found = difference(match.ours, match.theirs) if match.ours else (np.nan,) * 3
    verdict, note = _judge(match, found, setting)
    return {
        **{name: getattr(match, name) for name in ("table", "quantity", "about", "condition")},
        **dict(zip(("ours", "low", "high"), match.ours or (np.nan,) * 3, strict=True)),
        **{f"theirs{end}": value for end, value in zip(_ENDS, match.theirs, strict=True)},
        **{f"difference{end}": value for end, value in zip(_ENDS, found, strict=True)},
        "verdict": verdict,
        "note": note,
        "file": match.file,
    }


def _judge(match: Match, found: Sequence[float], setting: Setting) -> tuple[str, str]:
    if match.ours is None or np.isnan(match.ours[0]):
        missing = f"not in {match.file} of notebook {match.file[:2]}"
        return (NOT_COMPARABLE, match.apart) if match.apart else (MISSING, missing)
    reasons = [*setting.reasons_against(match.published), match.apart]
    reasons = [reason for reason in reasons if reason]
    verdict = NOT_COMPARABLE if reasons else AGREES if found[1] <= 0 <= found[2] else DIFFERS
    return verdict, "; ".join([*reasons, *([match.caveat] if match.caveat else [])])
