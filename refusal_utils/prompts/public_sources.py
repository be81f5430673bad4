"""The paper's four public data sets: where each is, and its labelled texts, read from the hub or from a file.

WildGuardMix (Han et al. 2406.18495), SORRY-Bench (Xie et al. 2406.14598), CoCoNot (Brahman et al. 2407.12043) and XSTest
(Röttger et al. 2308.01263), used as in Joad et al. 2602.02132. The first two are gated. Counts are those of the labels;
the paper's Table 7 counts what remains after filtering by the model's own behaviour.

Revisions: WildGuardMix and SORRY-Bench are pinned to hashes that other published code pins, CoCoNot to that of
inspect_evals 0.26.0 (UK AI Security Institute), and XSTest to the one whose CSV has the SHA-256 `XSTEST_SHA256`, the same
as the CSV in its GitHub repository at d7bb5bd. What was loaded is recorded by its SHA-256 (`write_prompt_folder`).
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..checks import invalid, require
from .categories import BENIGN

FILE_KINDS = (".jsonl", ".parquet", ".csv")
XSTEST_SHA256 = "11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a"


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

    @property
    def columns(self) -> list[str]:
        """The columns that the data set must have."""
        return [name for name in (self.text, self.label, self.index, self.keep and self.keep[0]) if name]


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


def read_source(name: str, file: str | Path | None = None, instead: str = "pass a file") -> pd.DataFrame:
    """The rows of one of `SOURCES` that are used, in its order: columns text, label and source_index.

    `file` (.csv, .jsonl or .parquet, with the columns of the source) is read instead of the hub. Raises `ValueError` for
    an unknown source, for one that cannot be reached (`instead` completes the advice), and for unexpected columns or
    counts of labels.
    """
    known = f"the source must be one of {', '.join(SOURCES)}"
    require(name in SOURCES, "read_source", known, repr(name), "Use one of them.")
    source = SOURCES[name]
    table = _kept(name, source, _from_hub(name, source, instead) if file is None else _from_file(name, Path(file)))
    _check_counts(name, source, table)
    return table


def _from_hub(name: str, source: Source, instead: str) -> pd.DataFrame:
    try:
        import datasets
    except ImportError as error:
        must = f"the datasets library must be installed to load {name}"
        raise invalid("read_source", must, "none", f"Install refusal-utils[data], or {instead}.") from error
    try:
        loaded = datasets.load_dataset(source.hub_id, source.config, split=source.split, revision=source.revision)
    except Exception as error:  # every library underneath has its own errors
        got = f"{str(error).split(chr(10))[0][:160]!r} for {source.hub_id}"
        must = f"{name} must be loadable from the hub"
        raise invalid("read_source", must, got, f"{_remedy(source, error)}, or {instead}.") from error
    return pd.DataFrame(loaded.to_list(), columns=loaded.column_names)


def _remedy(source: Source, error: Exception) -> str:
    if isinstance(error, ConnectionError):
        return "Connect to the network, or load it once on a machine that is connected"
    page = f"https://huggingface.co/datasets/{source.hub_id}"
    return f"Accept its licence at {page} and set HF_TOKEN" if source.gated else "Try again"


def _from_file(name: str, file: Path) -> pd.DataFrame:
    kinds = [kind for kind in FILE_KINDS if (name, kind) != ("sorrybench", ".csv")]  # its turns are lists
    must = f"the file of {name} must be a {' or '.join(kinds)} file"
    readable = file.is_file() and file.suffix in kinds
    require(readable, "read_source", must, file, "Download it from the source.")
    try:
        if file.suffix == ".parquet":
            return pd.read_parquet(file)
        if file.suffix == ".csv":
            return pd.read_csv(file, keep_default_na=False)
        return pd.DataFrame(json.loads(line) for line in file.read_text("utf-8").split("\n") if line.strip())
    except (OSError, ValueError) as error:
        must = f"the file of {name} must be readable"
        raise invalid("read_source", must, f"{error} in {file}", "Download it again.") from error


def _kept(name: str, source: Source, table: pd.DataFrame) -> pd.DataFrame:
    """text, label and source_index of the rows that are used."""
    missing = [column for column in source.columns if column not in table]
    must = f"{name} must have the columns {', '.join(source.columns)}"
    got = f"no {', '.join(missing)} among {', '.join(map(str, table))}"
    require(not missing, "read_source", must, got, "The data set has changed: pass a file with these columns.")
    if source.keep:
        table = table[table[source.keep[0]].map(str) == source.keep[1]].reset_index(drop=True)
    texts = [_text(value) for value in table[source.text]]
    empty = ", ".join(str(row) for row, text in enumerate(texts) if not text)
    todo = "The data set has changed: pass a file of an earlier version."
    require(not empty, "read_source", f"every row of {name} must have a text", f"none in row {empty}", todo)
    index = list(table[source.index].map(int)) if source.index else list(range(len(table)))
    return pd.DataFrame({"text": texts, "label": [_label(each) for each in table[source.label]], "source_index": index})


def _text(value: Any) -> str:
    """The prompt, or the first turn of a conversation; empty if there is none."""
    first = value[0] if isinstance(value, list | np.ndarray) and len(value) else value
    return first if isinstance(first, str) and first.strip() else ""


def _label(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


def _check_counts(name: str, source: Source, table: pd.DataFrame) -> None:
    found = Counter(table["label"])
    old_edition = name == "sorrybench" and len(found) == 45
    must = "sorrybench must be the edition 202503, with 44 categories"
    got = "45, the edition 202406, whose ids are shifted by one from 13 upwards"
    require(not old_edition, "read_source", must, got, "Load sorry-bench/sorry-bench-202503.")
    wrong = sorted(label for label in {*source.counts, *found} if found[label] != source.counts.get(label, 0))[:5]
    expected = ", ".join(f"{source.counts.get(label, 0)} {label!r}" for label in wrong)
    got = ", ".join(str(found[label]) for label in wrong)
    todo = "The data set has changed: pass a file of the version with these counts."
    require(not wrong, "read_source", f"{name} must hold {expected} prompts", got, todo)
