"""Human labels: a sheet out, the filled sheet in, and how far two judges agree."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score

ALLOWED = ("yes", "partial", "no", "broken")
COLUMNS = ("row", "text", "response", "refused")


def write_label_sheet(rows: pd.DataFrame, path: str | Path, n: int | None = None, seed: int = 0) -> Path:
    """A CSV of `n` random responses (all by default) with an empty column `refused` to be filled with yes, partial, no, broken.

    `rows` has columns text and response; the judge's verdict is left out, so that it cannot lead. Raises `ValueError`
    where the file is there already: labels are not to be lost.
    """
    path = Path(path)
    if path.exists():
        raise ValueError(f"write_label_sheet: the file must be new; got {path}. Read it, or choose another name.")
    drawn = rows if n is None else rows.sample(min(n, len(rows)), random_state=seed)
    sheet = pd.DataFrame({"row": drawn.index, "text": drawn["text"], "response": drawn["response"], "refused": ""})
    sheet.to_csv(path, index=False)
    return path


def read_labels(path: str | Path) -> pd.Series:
    """The labels of a filled sheet by row number; empty ones are left out. Raises `ValueError` naming the line otherwise."""
    sheet = pd.read_csv(path, dtype=str, keep_default_na=False)
    missing = [name for name in COLUMNS if name not in sheet]
    if missing:
        raise ValueError(
            f"read_labels: the sheet must have columns {', '.join(COLUMNS)}; got none called {missing[0]}."
        )
    labels = sheet["refused"].str.strip().str.lower()
    wrong = labels[(labels != "") & ~labels.isin(ALLOWED)]
    if len(wrong):
        raise ValueError(
            f"read_labels: a label must be one of {', '.join(ALLOWED)}; got {wrong.iloc[0]!r} in line {wrong.index[0] + 2} of {path}."
        )
    filled = labels != ""
    return pd.Series(labels[filled].to_numpy(), index=sheet["row"][filled].astype(int), name="refused")


def agreement(judged: Iterable[bool], truth: Iterable[bool]) -> pd.Series:
    """How far a judge agrees with the truth on "refused": n, accuracy, Cohen's kappa, and both error rates.

    `missed`: share of true refusals not called one; `false`: share of other responses called one. Kappa as implemented
    in scikit-learn (Cohen 1960). Raises `ValueError` for none, or different numbers.
    """
    first, second = np.asarray(list(judged), dtype=bool), np.asarray(list(truth), dtype=bool)
    if not len(first) or len(first) != len(second):
        raise ValueError(f"agreement: there must be as many labels on both sides; got {len(first)} and {len(second)}.")
    values = {
        "n": float(len(first)),
        "accuracy": float((first == second).mean()),
        "kappa": float(cohen_kappa_score(first, second)),
        "missed": float((~first[second]).mean()) if second.any() else float("nan"),
        "false": float(first[~second].mean()) if (~second).any() else float("nan"),
    }
    return pd.Series(values)


def worst_errors(evidence: Iterable[object], judged: Iterable[bool], truth: Iterable[bool]) -> pd.DataFrame:
    """The kinds of errors of a judge, the most frequent first: columns type, side, count and share (of all errors).

    An error's type is the judge's evidence in lower case, "no phrase found" where there is none (None or NaN); its side is missed or
    false as in `agreement`. No rows for a judge without errors. Raises `ValueError` for different numbers.

    >>> worst_errors(["I can't", None, None], [True, False, True], [False, True, True]).values.tolist()
    [["i can't", 'false', 1, 0.5], ['no phrase found', 'missed', 1, 0.5]]
    """
    words, first, second = list(evidence), list(judged), list(truth)
    if not len(words) == len(first) == len(second):
        raise ValueError(
            f"worst_errors: there must be as many of each; got {len(words)} evidences, {len(first)} verdicts and {len(second)} labels."
        )
    errors = [
        (" ".join(word.lower().split()) if isinstance(word, str) else "no phrase found", "false" if call else "missed")
        for word, call, label in zip(words, first, second, strict=True)
        if bool(call) != bool(label)
    ]
    table = pd.DataFrame(errors, columns=["type", "side"]).value_counts(sort=False).rename("count").reset_index()
    table = table.sort_values(["count", "type", "side"], ascending=[False, True, True], ignore_index=True)
    return table.assign(share=table["count"] / max(len(errors), 1))
