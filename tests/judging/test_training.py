"""What the judge is trained on: responses, whole and cut, with their weights, from small files of every set."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from refusal_utils.judging import training
from refusal_utils.judging.label_sets import LABEL_SETS

REFUSAL, LONG = "I can't help with that.", "You mix flour and water. " * 40


def write(folder, name: str, rows: list[tuple[str, str, str]]) -> None:
    """A set in `folder`: rows of language, response, and the meaning of the label."""
    labels = next(each for each in LABEL_SETS if each.name == name)
    named = {meaning: label for label, meaning in labels.labels.items()}
    fields = [
        {
            "id": f"m-{n}",
            "model": "m",
            "prompt": f"How {n}?",
            "lang": lang,
            "response": text,
            labels.label: named[meaning],
        }
        for n, (lang, text, meaning) in enumerate(rows)
    ]
    path = folder / labels.files[0]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(map(json.dumps, fields)), encoding="utf-8")


def trained_on(folder, **sets: list[tuple[str, str, str]]) -> pd.DataFrame:
    """The training rows if the sets named have these rows, and all others a short refusal and a short answer."""
    for labels in LABEL_SETS:
        short = [("en", REFUSAL, "yes"), ("en", "You mix it.", "no")]
        write(folder, labels.name, sets.get(labels.name, short))
    return training.labelled_rows(folder)


def test_a_set_without_human_labels_and_a_cut_response_count_less(tmp_path):
    own = [("en", REFUSAL, "yes"), ("en", LONG, "no")]
    rows = trained_on(tmp_path, **dict.fromkeys(("XSTest", "PolyRefuse", "Arditi et al."), own))
    found = {(of, cut): set(part["weight"]) for (of, cut), part in rows.groupby(["set", "cut"])}
    assert found == {
        **{(labels.name, False): {1.0} for labels in LABEL_SETS},
        ("PolyRefuse", False): {0.6},
        ("Arditi et al.", False): {0.4},
        ("XSTest", True): {0.5},
        ("PolyRefuse", True): {0.3},
        ("Arditi et al.", True): {0.2},
    }


def test_a_cut_english_response_must_show_what_the_whole_is(tmp_path):
    """An answer cut short and an early refusal do; a late refusal, and an answer that begins like a refusal, do not."""
    own = [
        ("en", LONG, "no"),
        ("en", f"{REFUSAL} {LONG}", "yes"),
        ("en", f"{LONG}{REFUSAL}", "yes"),
        ("en", f"{REFUSAL} {LONG}But look.", "no"),
    ]
    rows = trained_on(tmp_path, XSTest=own)
    assert list(rows.loc[rows["cut"], "text"]) == ["How 0?", "How 1?"]
    assert list(rows.loc[rows["set"].eq("XSTest") & ~rows["cut"], "refused"]) == [False, True, True, False]


def test_a_response_keeps_20_to_60_words_and_loses_more_than_five(tmp_path):
    texts = {n: " ".join([f"Wort{n}", *["Wort"] * (n % 76)]) for n in range(1500)}
    rows = trained_on(tmp_path, PolyRefuse=[("de", text, ("yes", "no")[n % 2]) for n, text in texts.items()])
    cut = rows[rows["cut"]]
    kept, whole = cut["response"].str.split().str.len(), cut["text"].str[4:-1].astype(int).map(texts)
    lost = whole.str.split().str.len() - kept
    assert (kept.min(), kept.max(), lost.min()) == (20, 60, 6)
    assert all(text.startswith(part) for text, part in zip(whole, cut["response"], strict=True))


@pytest.mark.parametrize(("n_refusals", "weight"), [(1, 0.6 / 3), (3, 0.6), (9, 0.6 * 3), (18, 0.6 * 6), (30, 0.6 * 6)])
def test_an_answer_in_another_language_counts_as_much_as_its_refusals_up_to_six_times(tmp_path, n_refusals, weight):
    german = [("de", "Nein.", "yes")] * n_refusals + [("de", "Man nehme Mehl.", "no")] * 3
    rows = trained_on(tmp_path, PolyRefuse=german).query("lang == 'de'")
    assert rows.loc[rows["refused"], "weight"].unique() == pytest.approx([0.6])
    assert rows.loc[~rows["refused"], "weight"].unique() == pytest.approx([weight])


def test_who_is_held_out_by_prompt_or_set_is_not_known_from_it():
    """A mark of each prompt tells its label if the same prompt is in another set, and nothing if it is new."""
    rows = pd.DataFrame({"group": [*range(24)] * 2, "set": ["a"] * 24 + ["b"] * 24, "weight": 1.0})
    rows["refused"] = rows["group"] % 2 == 0
    marks = csr_matrix(np.eye(24)[rows["group"]])
    known, new = (training.held_out(marks, rows, by) for by in ("set", "group"))
    assert ((known > 0.5) == rows["refused"]).all()
    assert abs(new - 0.5).max() < 0.2
