"""Public sets of labelled responses: where each is, and what its labels mean in our definition (`docs/judge.md`).

`LABEL_SETS` is the one table; `read_label_set` reads the files of a set from a folder of data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..checks import invalid, require
from ..prompts.tables import numbered_rows

# What a label can mean: the verdicts of `Judgement`, its two kinds, or a verdict that the definition leaves open.
MEANINGS = ("yes", "partial", "no", "broken", "asks back", "corrects the premise", "open")
COUNTED = {"yes": True, "partial": True, "asks back": True, "no": False, "broken": False}
COLUMNS = ["set", "model", "lang", "group", "text", "response", "label", "meaning", "refused"]


@dataclass(frozen=True)
class LabelSet:
    """A set of labelled responses.

    `labels`: the meaning of each label, one of `MEANINGS`. `counted`: whether a meaning counts as refused, if the set's
    authors decide differently from us or we leave it open; a meaning in neither is not counted at all. `by`: who gave
    the labels. `group`: what follows the last "-" of an id if that names the prompt, else the prompt's text does.
    """

    name: str
    files: tuple[str, ...]
    label: str
    labels: Mapping[str, str]
    by: str = "people"
    counted: Mapping[str, bool] | None = None
    group_by_id: bool = False


LABEL_SETS = (
    LabelSet(
        "XSTest",
        ("judge/xstest_three_models.jsonl", "xstest/completions_human.jsonl"),
        "label",
        {"1_full_compliance": "no", "2_full_refusal": "yes", "3_partial_refusal": "partial"},
    ),
    LabelSet("WildGuardTest", ("judge/wildguardtest.jsonl",), "label", {"refusal": "yes", "compliance": "no"}),
    LabelSet(
        "Do-Not-Answer",
        ("judge/do_not_answer_three_models.jsonl", "do_not_answer/completions_human.jsonl"),
        "label",
        # declines, refutes the premise, dual view, general information, inability or uncertainty, follows
        {"0": "yes", "1": "corrects the premise", "2": "open", "3": "open", "4": "open", "5": "no"},
    ),
    LabelSet(
        "ChatGPT refusals",
        ("judge/chatgpt_refusals.jsonl",),
        "label",
        {
            "complied": "no",
            "rejected": "yes",
            "redirected": "yes",
            "counseling": "yes",
            "dontknow": "yes",
            "disclaimed": "partial",
            "contradicted": "corrects the premise",
            "incoherent": "broken",
        },
        counted={"corrects the premise": True},  # its authors count everything but compliance
    ),
    LabelSet(
        "PolyRefuse",
        ("judge/polyrefuse_baseline.jsonl",),
        "label",
        {"refusal": "yes", "compliance": "no"},
        by="WildGuard, on an English translation",
        group_by_id=True,
    ),
    LabelSet(
        "Arditi et al.",
        ("completions/arditi_gemma2b_llama3.jsonl",),
        "is_jailbreak_substring_matching",
        {"0": "yes", "1": "no"},
        by="a published list of phrases",
    ),
)


def read_label_set(labels: LabelSet, folder: str | Path) -> pd.DataFrame:
    """The responses of a set with columns set, model, lang, group, text, response, label, meaning and refused.

    `refused` is the truth that a judge is measured against: True, False, or None for a row that is not counted. `group`
    is the same for all responses to one prompt, in whichever language. Files that are not in `folder` are left out.
    Raises `ValueError` if none is there, and for a label that the table does not have.
    """
    paths = [path for path in (Path(folder) / file for file in labels.files) if path.is_file()]
    must, got = f"{folder} must have a file of {labels.name}", f"no {' or '.join(labels.files)}"
    require(bool(paths), "read_label_set", must, got, "Pass the folder that holds these folders.")
    rows = [_row(labels, fields) for path in paths for _, fields in numbered_rows(path)]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"refused": object})


def _row(labels: LabelSet, row: dict) -> tuple:
    names = (labels.label, "final_label", "human_action")  # the older files have other names
    told = {**row, **row.get("labels", {})}
    needed = {"label": names, "model": ("model",), "prompt": ("prompt",)} | (
        {"id": ("id",)} if labels.group_by_id else {}
    )
    missing = [what for what, known in needed.items() if all(told.get(name) is None for name in known)]
    must, got = f"a row of {labels.name} must have its label, model and prompt", f"one without {', '.join(missing)}"
    require(not missing, "read_label_set", must, got, "Fetch the file again.")
    label = str(next(told[name] for name in names if told.get(name) is not None))
    if label not in labels.labels:
        must = f"a label of {labels.name} must be one of {', '.join(labels.labels)}"
        raise invalid("read_label_set", must, repr(label), "Add it to LABEL_SETS.")
    meaning = labels.labels[label]
    refused = {**COUNTED, **(labels.counted or {})}.get(meaning)
    group = str(row["id"]).rpartition("-")[2] if labels.group_by_id else " ".join(row["prompt"].lower().split())
    response = row.get("response", row.get("completion")) or ""
    lang = row.get("lang", "en")
    return (labels.name, row["model"], lang, group, row["prompt"], response, label, meaning, refused)
