"""Frames of prompts without a column that a function reads: one sentence that names function and column."""

import pandas as pd
import pytest

from refusal_utils.judging.label_sets import LABEL_SETS, read_label_set
from refusal_utils.latents.command import train_and_measure
from refusal_utils.methods.candidates import find_candidates
from refusal_utils.methods.instructed import instructed_effects, read_instructed
from refusal_utils.methods.training import prepare
from refusal_utils.model.system_prompts import by_system_prompt
from refusal_utils.prompts.draws import draw_prompts, held_out
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.prompts.summary import summarize_prompts
from refusal_utils.prompts.twins import compare_twins, contrast_pairs, twin_pairs
from refusal_utils.steering.responses import judge_rows, respond

PROMPTS = load_prompts().groupby("category").head(2)
INSTRUCTED = pd.DataFrame({"id": ["a"], "system": ["b"], "text": ["c"], "pair_id": ["d"], "on_topic": [True]})
HALVES = {"n_train": 4, "n_validation": 4, "needs_tokens": False, "filter_prompts": False}
# (name in the error, what is called, a frame with all columns, the columns that it reads)
CASES = [
    ("draw_prompts", lambda _, rows: draw_prompts(rows, "label", 1), PROMPTS, ("id", "category", "text")),
    ("held_out", lambda _, rows: held_out(rows, rows), PROMPTS, ("id", "kind", "split", "text")),
    ("summarize_prompts", lambda _, rows: summarize_prompts(rows), PROMPTS, ("category", "split", "text", "pair_id")),
    ("twin_pairs", lambda _, rows: twin_pairs(rows), PROMPTS, ("category", "text", "pair_id")),
    ("twin_pairs", lambda _, rows: compare_twins(rows), PROMPTS, ("category", "text", "pair_id")),
    ("contrast_pairs", lambda _, rows: contrast_pairs(rows, 1), PROMPTS, ("id", "category", "text", "pair_id")),
    ("respond", lambda chat, rows: respond(chat, rows), PROMPTS, ("text",)),
    ("judge_rows", lambda _, rows: judge_rows(rows), PROMPTS.assign(response="No."), ("text", "response")),
    ("by_system_prompt", lambda chat, rows: [*by_system_prompt(chat, rows)], INSTRUCTED, ("system", "text")),
    ("read_instructed", lambda chat, rows: read_instructed(chat, rows), INSTRUCTED, ("system", "pair_id", "on_topic")),
    ("instructed_effects", lambda chat, rows: instructed_effects(chat, {}, rows), INSTRUCTED, ("id", "on_topic")),
    ("cosmic", lambda chat, rows: find_candidates("cosmic", chat, rows, **HALVES), PROMPTS, ("category", "text")),
    ("rdo", lambda chat, rows: prepare("rdo", chat, rows), PROMPTS, ("id", "category", "text")),
    ("train_and_measure", lambda chat, rows: train_and_measure(chat, rows, None, "x"), PROMPTS, ("split", "text")),
]


@pytest.mark.parametrize(
    ("name", "call", "rows", "column"),
    [
        pytest.param(name, call, rows, column, id=f"{name}-{column}-{number}")
        for number, (name, call, rows, columns) in enumerate(CASES)
        for column in columns
    ],
)
def test_a_missing_column_is_named(name, call, rows, column, chat):
    with pytest.raises(ValueError, match=f"^{name}: prompts must have the columns .*; got none called {column}\\."):
        call(chat, rows.drop(columns=column))


def test_a_published_label_file_without_a_field_is_one_sentence(tmp_path):
    labels = next(each for each in LABEL_SETS if each.name == "WildGuardTest")
    path = tmp_path / labels.files[0]
    path.parent.mkdir()
    whole = {"label": "refusal", "model": "m", "prompt": "How?", "response": "No."}
    for missing in ("label", "model", "prompt"):
        pd.DataFrame([whole]).drop(columns=missing).to_json(path, orient="records", lines=True)
        with pytest.raises(ValueError, match=f"^read_label_set: a row of WildGuardTest .*; got one without {missing}"):
            read_label_set(labels, tmp_path)
    pd.DataFrame([whole]).to_json(path, orient="records", lines=True)
    assert read_label_set(labels, tmp_path)["refused"].tolist() == [True]  # before control
