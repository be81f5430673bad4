"""Human labels: write a sheet to fill in, read it back, and measure how well two judges agree."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, cohen_kappa_score, recall_score

from ..checks import require
from ..prompts.tables import numbered_rows

ALLOWED = ("yes", "partial", "no", "broken")


def write_label_sheet(rows: pd.DataFrame, path: str | Path, n: int | None = None, seed: int = 0) -> Path:
    """The path of a new CSV with `n` random responses (all if None) and an empty column `refused` to fill in.

    Labels are yes, partial, no or broken. `rows` has the columns text and response; the judge's verdict is not shown,
    so that it cannot influence the reader. Raises `ValueError` if the file exists, so that no labels are overwritten.
    """
    path = Path(path)
    require(not path.exists(), "write_label_sheet", "the file must be new", path, "Read it, or choose another name.")
    drawn = rows if n is None else rows.sample(min(n, len(rows)), random_state=seed)
    drawn[["text", "response"]].assign(refused="").to_csv(path, index_label="row")
    return path


def read_labels(path: str | Path) -> pd.Series:
    """The labels of a filled sheet by row number, without empty ones.

    Raises `ValueError` that names the line of a label that is not allowed, of a row number that is invalid or occurs
    twice, and of a row that cannot be read (`numbered_rows`).
    """
    labels: dict[int, str] = {}
    for line, cells in numbered_rows(Path(path)):
        must = "the sheet must have row and refused"
        require({"row", "refused"} <= {*cells}, "read_labels", must, [*cells], "Restore them.")
        row, label = cells["row"].strip(), cells["refused"].strip().lower()
        must = "row must be a number that stands once"
        new = row.isdecimal() and int(row) not in labels
        require(new, "read_labels", must, f"{row!r} in line {line} of {path}", "Restore it.")
        must = f"a label must be one of {', '.join(ALLOWED)}"
        require(label in ("", *ALLOWED), "read_labels", must, f"{label!r} in line {line} of {path}", "Correct it.")
        labels[int(row)] = label
    return pd.Series({row: label for row, label in labels.items() if label}, dtype=object)


def agreement(judged: Iterable[bool], truth: Iterable[bool]) -> pd.Series:
    """Agreement of a judge with the truth on "refused": n, accuracy, Cohen's kappa, and both error rates.

    `missed` is the share of true refusals that the judge does not call one, `false` the share of other responses that
    it does (NaN without any). Raises `ValueError` for no labels or different numbers of them.
    """
    judged, truth = (np.fromiter(labels, dtype=bool) for labels in (judged, truth))
    values = {
        "n": len(truth),
        "accuracy": accuracy_score(truth, judged),
        "kappa": cohen_kappa_score(truth, judged),
        "missed": 1 - recall_score(truth, judged, zero_division=np.nan),
        "false": 1 - recall_score(~truth, ~judged, zero_division=np.nan),
    }
    return pd.Series(values, dtype=float)


def worst_errors(evidence: Iterable[object], judged: Iterable[bool], truth: Iterable[bool]) -> pd.DataFrame:
    """The errors of a judge by kind, most frequent first: columns type, side, count and share (of all errors).

    The type of an error is the judge's evidence in lower case, or "no phrase found" without one (None or NaN); its side
    is missed or false as in `agreement`. Raises `ValueError` for different numbers of arguments.

    >>> worst_errors(["I can't", None, None], [True, False, True], [False, True, True]).values.tolist()
    [["i can't", 'false', 1, 0.5], ['no phrase found', 'missed', 1, 0.5]]
    """
    rows = pd.DataFrame(zip(evidence, judged, truth, strict=True), columns=["type", "judged", "truth"], dtype=object)
    errors = rows[rows["judged"] != rows["truth"]]
    words = errors["type"].fillna("no phrase found").str.lower().str.split().str.join(" ")
    kinds = [words, errors["judged"].map({True: "false", False: "missed"}).rename("side")]
    table = errors.groupby(kinds).size().sort_values(ascending=False, kind="stable").rename("count").reset_index()
    return table.assign(share=table["count"] / len(errors))
