"""Human labels: write a sheet to fill in, read it back, and measure how well two judges agree."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score

from ..checks import require

ALLOWED = ("yes", "partial", "no", "broken")
COLUMNS = ("row", "text", "response", "refused")


def write_label_sheet(rows: pd.DataFrame, path: str | Path, n: int | None = None, seed: int = 0) -> Path:
    """The path of a new CSV with `n` random responses (all if None) and an empty column `refused` to fill in.

    Labels are yes, partial, no or broken. `rows` has the columns text and response; the judge's verdict is not shown, so
    that it cannot influence the reader. Raises `ValueError` if the file exists, so that no labels are overwritten.
    """
    path = Path(path)
    require(not path.exists(), "write_label_sheet", "the file must be new", path, "Read it, or choose another name.")
    drawn = rows if n is None else rows.sample(min(n, len(rows)), random_state=seed)
    sheet = pd.DataFrame({"row": drawn.index, "text": drawn["text"], "response": drawn["response"], "refused": ""})
    sheet.to_csv(path, index=False)
    return path


def read_labels(path: str | Path) -> pd.Series:
    """The labels of a filled sheet by row number, without empty ones. Raises `ValueError` that names a wrong line."""
    sheet = pd.read_csv(path, dtype=str, keep_default_na=False)
    missing = [name for name in COLUMNS if name not in sheet]
    must = f"the sheet must have the columns {', '.join(COLUMNS)}"
    require(not missing, "read_labels", must, f"none called {', '.join(missing[:1])}", "Restore the column.")
    labels = sheet["refused"].str.strip().str.lower()
    filled = labels != ""
    wrong = [f"{labels[at]!r} in line {at + 2} of {path}" for at in labels.index[filled & ~labels.isin(ALLOWED)]]
    require(not wrong, "read_labels", f"a label must be one of {', '.join(ALLOWED)}", "".join(wrong[:1]), "Correct it.")
    return pd.Series(labels[filled].to_numpy(), index=sheet["row"][filled].astype(int), name="refused")


def agreement(judged: Iterable[bool], truth: Iterable[bool]) -> pd.Series:
    """Agreement of a judge with the truth on "refused": n, accuracy, Cohen's kappa, and both error rates.

    `missed` is the share of true refusals that the judge does not call one, `false` the share of other responses that it
    does. Kappa is scikit-learn's (Cohen 1960). Raises `ValueError` for no labels or different numbers of them.
    """
    first, second = np.asarray(list(judged), dtype=bool), np.asarray(list(truth), dtype=bool)
    given = len(first) == len(second) > 0
    must = "there must be as many labels on both sides, at least one"
    require(given, "agreement", must, f"{len(first)} and {len(second)}", "Pass one label per response.")
    values = {
        "n": float(len(first)),
        "accuracy": float((first == second).mean()),
        "kappa": float(cohen_kappa_score(first, second)),
        "missed": float((~first[second]).mean()) if second.any() else float("nan"),
        "false": float(first[~second].mean()) if (~second).any() else float("nan"),
    }
    return pd.Series(values)


def worst_errors(evidence: Iterable[object], judged: Iterable[bool], truth: Iterable[bool]) -> pd.DataFrame:
    """The errors of a judge by kind, most frequent first: columns type, side, count and share (of all errors).

    The type of an error is the judge's evidence in lower case, or "no phrase found" without one (None or NaN); its side is
    missed or false as in `agreement`. A judge without errors gives no rows. Raises `ValueError` for different numbers.

    >>> worst_errors(["I can't", None, None], [True, False, True], [False, True, True]).values.tolist()
    [["i can't", 'false', 1, 0.5], ['no phrase found', 'missed', 1, 0.5]]
    """
    words, first, second = list(evidence), list(judged), list(truth)
    given = len(words) == len(first) == len(second)
    got = f"{len(words)} evidences, {len(first)} verdicts and {len(second)} labels"
    require(given, "worst_errors", "there must be as many of each", got, "Pass one of each per response.")
    errors = [
        (" ".join(word.lower().split()) if isinstance(word, str) else "no phrase found", "false" if call else "missed")
        for word, call, label in zip(words, first, second, strict=True)
        if bool(call) != bool(label)
    ]
    table = pd.DataFrame(errors, columns=["type", "side"]).value_counts(sort=False).rename("count").reset_index()
    table = table.sort_values(["count", "type", "side"], ascending=[False, True, True], ignore_index=True)
    return table.assign(share=table["count"] / max(len(errors), 1))
