"""The paper's four public data sets: where each is, and its labelled texts, read from the hub or from a file.

WildGuardMix (Han et al. 2406.18495), SORRY-Bench (Xie et al. 2406.14598), CoCoNot (Brahman et al. 2407.12043) and
XSTest (Röttger et al. 2308.01263), used as in Joad et al. 2602.02132. The first two are gated. WildGuardMix and
SORRY-Bench are pinned to revisions that other published code pins, CoCoNot to that of inspect_evals 0.26.0, and XSTest
to the one whose CSV equals the one in its GitHub repository at d7bb5bd.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..checks import invalid, require
from .categories import BENIGN
from .tables import numbered_rows

FILE_KINDS = (".jsonl", ".parquet", ".csv")


@dataclass(frozen=True)
class Source:
    """A data set on the hub: its columns with text and label, and the number of prompts with each label.

    `categories` maps labels to our categories; prompts with other labels are ignored. `keep` is a column and the value
    that rows must have there. `index` is the column that numbers the rows; by default they are numbered from 0 in the
    order of those that are kept. `into` is the split of all its prompts; None divides them.
    """

    hub_id: str
    config: str | None
    split: str
    revision: str
    text: str
    label: str
    categories: Mapping[str, str]
    counts: Mapping[str, int] = field(repr=False)
    keep: tuple[str, str] | None = None
    index: str | None = None
    into: str | None = None
    benign_kind: str = "ordinary"
    gated: bool = False


# SORRY-Bench numbers its categories: 1-5, 6-24, 25-39 and 40-44.
_SORRY_NAMES = ["hate_speech"] * 5 + ["crime_assistance"] * 19 + ["inappropriate"] * 15 + ["advice"] * 5
_SORRY = {str(number): name for number, name in enumerate(_SORRY_NAMES, 1)}
_COCONOT = {"Requests with safety concerns": "safety_concerns"}
_COCONOT |= {f"{name.title()} requests": name for name in ("incomplete", "unsupported", "indeterminate", "humanizing")}


def _coconot(split: str, into: str, counts: tuple[int, ...]) -> Source:
    sizes = dict(zip(_COCONOT, counts, strict=True))
    revision = "2cbe16aabf9069f17e48c8daad8aeabc29469eb7"
    return Source("allenai/coconot", "original", split, revision, "prompt", "category", _COCONOT, sizes, into=into)


SOURCES: dict[str, Source] = {
    "wildguard": Source(
        "allenai/wildguardmix",
        "wildguardtest",
        "test",
        "d29c47f41c8b51348b5c8e8c81c039b3132b66d1",
        "prompt",
        "prompt_harm_label",
        {"harmful": "safety_core", "unharmful": BENIGN},
        {"harmful": 413, "unharmful": 490, "": 12},
        keep=("adversarial", "False"),
        gated=True,
    ),
    "sorrybench": Source(
        "sorry-bench/sorry-bench-202503",
        None,
        "train",
        "612a4e1f45db8adf884fa62318ddf9fa1c6e75e9",
        "turns",
        "category",
        _SORRY,
        dict.fromkeys(_SORRY, 10),
        keep=("prompt_style", "base"),
        index="question_id",
        gated=True,
    ),
    "coconot": _coconot("test", "eval", (395, 225, 157, 142, 82)),
    "coconot_train": _coconot("train", "train", (3136, 3838, 1807, 901, 1795)),
    "xstest": Source(
        "Paul/XSTest",
        None,
        "train",
        "f600c994b256f12867dfa5b3eb3d545a3e62f8b5",
        "prompt",
        "label",
        {"unsafe": "over_refusal", "safe": BENIGN},
        {"safe": 250, "unsafe": 200},
        benign_kind="look_alike",
    ),
}


def own_file(name: str, folder: Path) -> Path | None:
    """The file `<name>.jsonl`, `.parquet` or `.csv` in `folder`, if there is one."""
    return next((file for kind in FILE_KINDS if (file := folder / f"{name}{kind}").is_file()), None)


def read_source(name: str, folder: Path) -> pd.DataFrame:
    """The rows of one of `SOURCES` that are used, in its order: columns text, label and source_index.

    The file of that name in `folder` (`own_file`) is read instead of the hub. Raises `ValueError` if neither can be
    read, and for unexpected columns or counts of labels.
    """
    file = own_file(name, folder)
    table = _used(name, _from_file(name, file) if file else _from_hub(name, f"put its file at {folder / name}.jsonl"))
    counts, found = SOURCES[name].counts, Counter(table["label"])
    wrong = sorted(label for label in {*counts, *found} if found[label] != counts.get(label, 0))[:5]
    expected = ", ".join(f"{counts.get(label, 0)} {label!r}" for label in wrong)
    got = ", ".join(str(found[label]) for label in wrong)
    todo = "The data set has changed: pass a file of the version with these counts."
    require(not wrong, "read_source", f"{name} must hold {expected} prompts", got, todo)
    return table


def _from_hub(name: str, instead: str) -> pd.DataFrame:
    source = SOURCES[name]
    try:
        import datasets
    except ImportError as error:
        must = f"the datasets library must be installed to load {name}"
        raise invalid("read_source", must, "none", f"Install refusal-utils[data], or {instead}.") from error
    try:
        loaded = datasets.load_dataset(source.hub_id, source.config, split=source.split, revision=source.revision)
    except Exception as error:  # every library underneath has its own errors
        reason, must = str(error).partition("\n")[0][:160], f"{name} must be loadable from the hub"
        got = f"{reason!r} for {source.hub_id}"
        raise invalid("read_source", must, got, f"{_remedy(source, error)}, or {instead}.") from error
    return pd.DataFrame(loaded.to_list(), columns=loaded.column_names)


def _remedy(source: Source, error: Exception) -> str:
    if isinstance(error, ConnectionError):
        return "Connect to the network, or load it once on a machine that is connected"
    page = f"https://huggingface.co/datasets/{source.hub_id}"
    return f"Accept its licence at {page} and set HF_TOKEN" if source.gated else "Try again"


def _from_file(name: str, file: Path) -> pd.DataFrame:
    is_text = (name, file.suffix) != ("sorrybench", ".csv")
    must = "the file of sorrybench, whose turns are lists, must be .jsonl or .parquet"
    require(is_text, "read_source", must, file, "Download it in one of these formats.")
    try:
        if file.suffix == ".parquet":
            return pd.read_parquet(file)
        return pd.DataFrame(fields for _, fields in numbered_rows(file))
    except (OSError, ValueError) as error:
        must = f"the file of {name} must be readable"
        raise invalid("read_source", must, f"{error} in {file}", "Download it again.") from error


def _used(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """text, label and source_index of the rows that are used."""
    source = SOURCES[name]
    needed = [column for column in (source.text, source.label, source.index, source.keep and source.keep[0]) if column]
    missing = [column for column in needed if column not in table]
    got = f"no {', '.join(missing)} among {', '.join(map(str, table))}"
    todo = "The data set has changed: pass a file of an earlier version."
    require(not missing, "read_source", f"{name} must have the columns {', '.join(needed)}", got, todo)
    if source.keep:
        table = table[table[source.keep[0]].map(str) == source.keep[1]].reset_index(drop=True)
    texts = table[source.text].map(_first_turn)
    empty = ", ".join(map(str, texts.index[texts.str.strip() == ""]))
    require(not empty, "read_source", f"every row of {name} must have a text", f"none in row {empty}", todo)
    labels = table[source.label].map(lambda label: "" if pd.isna(label) else str(label))
    index = table[source.index].map(int) if source.index else table.index
    return pd.DataFrame({"text": texts, "label": labels, "source_index": index})


def _first_turn(value: Any) -> str:
    """The prompt, or the first turn of a conversation; empty if there is none."""
    first = value[0] if isinstance(value, list | np.ndarray) and len(value) else value
    return first if isinstance(first, str) else ""
