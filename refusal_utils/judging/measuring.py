"""How well a judge agrees with labelled responses: the whole table from files of labels."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..checks import require
from ..prompts.tables import numbered_rows
from ..stats import bootstrap_counts, percentile_interval
from .judgement import Judge, Judgement
from .label_sets import COUNTED, LABEL_SETS, MEANINGS, LabelSet
from .labels import agreement, worst_errors

# The names that a column may have in files of labels.
NAMES = {
    "prompt": ("prompt", "text"),
    "response": ("response", "completion"),
    "label": ("label", "refused", "final_label", "human_action"),
}
OWN_LABELS = LabelSet("", (), "label", {**{each: each for each in MEANINGS}, "true": "yes", "false": "no"})
FIGURES = ["set", "language", "n", "open", "accuracy", "kappa", "low", "high", "missed", "false", "worst errors"]


def measure_judge(files: Iterable[str | Path], judge: Judge, n_draws: int = 1000) -> pd.DataFrame:
    """The agreement of `judge` with files of labels: a row per data set, and per language of a set that has several.

    Columns: set; language; n; open (share of rows that the judge left open); accuracy, kappa, missed and false as in
    `agreement`; low and high, the 95 % bootstrap interval of kappa over prompts; worst errors, as in `worst_errors`. A
    file is read by `read_labelled`. Raises `ValueError` as it does.
    """
    rows = pd.concat([read_labelled(each) for each in files], ignore_index=True)
    given = _judge_all(judge, list(rows["prompt"]), list(rows["response"]))
    rows["judged"] = [each.outcome == "refused" for each in given]
    rows["evidence"] = [each.evidence for each in given]
    rows["open"] = [each.outcome not in ("refused", "answered", "broken") for each in given]
    table = []
    for name, part in rows.groupby("set", sort=False):
        table.append(_figures(part, n_draws, set=name, language="all"))
        if part["language"].nunique() > 1:
            table += [_figures(own, n_draws, set=name, language=code) for code, own in part.groupby("language")]
    return pd.DataFrame(table, columns=FIGURES)


def read_labelled(path: str | Path) -> pd.DataFrame:
    """The rows of a file that count, with columns set, language, prompt, response, and refused (the truth).

    A `.jsonl` or `.csv` file with the columns prompt, response and label (or their other `NAMES`), and perhaps set and
    language (or lang). Labels are those of our definition (`MEANINGS`, true, false) or of a set in `LABEL_SETS`. A row
    without a label, or whose label is left open, does not count. Raises `ValueError` for a missing file or column, for
    labels that belong to no set, and for a line that cannot be read (`numbered_rows`).
    """
    path = Path(path)
    must, todo = "labels must be in a .jsonl or .csv file", "Check the path."
    got = path if path.is_file() else f"{path}, which is {'a folder' if path.is_dir() else 'not there'}"
    require(path.is_file() and path.suffix in (".jsonl", ".csv"), "read_labelled", must, got, todo)
    rows = pd.DataFrame(fields for _, fields in numbered_rows(path))
    columns = {name: next((each for each in known if each in rows), None) for name, known in NAMES.items()}
    missing = [name for name, found in columns.items() if found is None]
    got, todo = f"{', '.join(missing)} missing in {path.name}", "Add the columns prompt, response and label."
    require(not missing, "read_labelled", "a file of labels must have its columns", got, todo)
    found = pd.DataFrame({name: rows[column].fillna("").astype(str) for name, column in columns.items()})
    found["set"] = _column(rows, "set", path.stem)
    found["language"] = _column(rows, "lang" if "lang" in rows else "language", "en")
    found = found[found["label"].str.strip() != ""]
    found["label"] = found["label"].str.strip().str.lower()
    labels = _vocabulary(path, set(found["label"]))
    counted = {"corrects the premise": False, **COUNTED, **(labels.counted or {})}
    if labels.name == "Do-Not-Answer":  # its label mixes responses that refuse and that answer
        counted.pop("corrects the premise")
    return found.assign(refused=found["label"].map(labels.labels).map(counted)).dropna(subset="refused")


def kappa_interval(
    judged: Bool[Tensor, " row"], truth: Bool[Tensor, " row"], groups: Sequence[str], n_draws: int = 1000
) -> tuple[float, float]:
    """(low, high): the 95 % interval of Cohen's kappa if groups of rows, such as those of one prompt, are resampled."""
    codes = torch.from_numpy(pd.factorize(pd.Series(groups))[0])
    counts = bootstrap_counts(torch.zeros(int(codes.max()) + 1, dtype=torch.long), n_draws)
    cells = torch.stack([judged & truth, judged & ~truth, ~judged & truth, ~judged & ~truth]).double()
    by_group = torch.zeros(len(counts[0]), 4, dtype=torch.float64).index_add_(0, codes, cells.T)
    low, high = percentile_interval(_kappa(counts @ by_group))
    return float(low), float(high)


def _kappa(cells: Float[Tensor, "draw side"]) -> Float[Tensor, " draw"]:
    """Cohen's kappa of each table (both, judged only, truth only, neither); NaN if all rows are alike."""
    both, judged, truth, neither = (cells / cells.sum(1, keepdim=True)).unbind(1)
    chance = (both + judged) * (both + truth) + (neither + judged) * (neither + truth)
    return (both + neither - chance) / (1 - chance)


def _figures(part: pd.DataFrame, n_draws: int, **names: object) -> dict:
    kept = part[~part["open"]]
    if kept.empty:
        return {**names, "n": 0, "open": 1.0, "worst errors": ""}
    judged, truth = kept["judged"].tolist(), kept["refused"].astype(bool).tolist()
    low, high = kappa_interval(torch.tensor(judged), torch.tensor(truth), list(kept["prompt"]), n_draws)
    errors = worst_errors(list(kept["evidence"]), judged, truth).head(3)
    worst = "; ".join(f"{row.type:.40} ({row.side}, {row.count})" for row in errors.itertuples())
    found = {**names, **agreement(judged, truth), "open": part["open"].mean(), "low": low, "high": high}
    return {**found, "n": len(kept), "worst errors": worst or "none"}


def _judge_all(judge: Judge, prompts: list[str], responses: list[str]) -> list[Judgement]:
    many = getattr(judge, "judge_many", None)
    return many(prompts, responses) if many else [judge(*each) for each in zip(prompts, responses, strict=True)]


def _column(rows: pd.DataFrame, name: str, otherwise: str) -> pd.Series:
    """A column as text, or `otherwise` in rows without a value."""
    values = rows.get(name, pd.Series("", rows.index)).fillna("").astype(str).str.strip()
    return values.where(values != "", otherwise)


def _vocabulary(path: Path, labels: set[str]) -> LabelSet:
    """The set whose labels these are: ours, that of the file's name, or another that knows all of them."""
    named = [each for each in LABEL_SETS if any(Path(file).name == path.name for file in each.files)]
    worded = [] if labels <= {"0", "1"} else LABEL_SETS  # 0 and 1 mean different things in different sets
    known = [each for each in (*named, OWN_LABELS, *worded) if labels <= set(each.labels)]
    must = "the labels of a file must be ours (yes, partial, no, ...) or those of a set in LABEL_SETS"
    unknown = sorted(labels - set(OWN_LABELS.labels))
    require(bool(known), "read_labelled", must, f"{unknown[:3]} in {path.name}", "Rename them.")
    return known[0]
