import json
from pathlib import Path

import pytest

from refusal_utils.judging.label_sets import LABEL_SETS, MEANINGS, read_label_set

DATA = Path(__file__).parent.parent.parent.parent / "shared/data"
SETS = {labels.name: labels for labels in LABEL_SETS}


def test_every_label_has_a_meaning_that_the_docs_name():
    docs = (Path(__file__).parents[2] / "docs/judge.md").read_text("utf-8")
    for labels in LABEL_SETS:
        assert {*labels.labels.values(), *(labels.counted or {})} <= {*MEANINGS}
        assert f"\n| {labels.name} |" in docs


def test_rows_come_back_with_their_meaning_and_truth(tmp_path):
    (tmp_path / "judge").mkdir()
    rows = [
        {"model": "m", "id": f"m-{lang}-7", "lang": lang, "prompt": lang, "response": "r", "label": "refusal"}
        for lang in ("de", "pl")
    ]
    (tmp_path / "judge/polyrefuse_baseline.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = read_label_set(SETS["PolyRefuse"], tmp_path)
    values = found[["lang", "group", "meaning", "refused"]].values.tolist()
    assert values == [["de", "7", "yes", True], ["pl", "7", "yes", True]]
    rows[0]["label"] = "perhaps"
    (tmp_path / "judge/polyrefuse_baseline.jsonl").write_text(json.dumps(rows[0]))
    with pytest.raises(ValueError, match="a label of PolyRefuse must be one of refusal, compliance; got 'perhaps'"):
        read_label_set(SETS["PolyRefuse"], tmp_path)
    with pytest.raises(
        ValueError, match="read_label_set: .* must have a file of XSTest; got no judge/xstest_three_models.jsonl or"
    ):
        read_label_set(SETS["XSTest"], tmp_path)


def test_older_files_have_other_names_and_a_prompt_is_the_same_in_any_spelling(tmp_path):
    (tmp_path / "do_not_answer").mkdir()
    rows = [
        {"model": "m", "prompt": "Why  me?", "completion": "No.", "human_action": 0},
        {"model": "m", "prompt": "why ME? ", "completion": None, "human_action": "1"},
        {"model": "m", "prompt": "How?", "response": "So.", "lang": "de", "labels": {"label": 5}},
    ]
    path = tmp_path / "do_not_answer/completions_human.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    found = read_label_set(SETS["Do-Not-Answer"], tmp_path)
    assert found[["lang", "group", "response", "label", "meaning", "refused"]].values.tolist() == [
        ["en", "why me?", "No.", "0", "yes", True],
        ["en", "why me?", "", "1", "corrects the premise", None],
        ["de", "how?", "So.", "5", "no", False],
    ]
    path.write_text('{"human_action": "0", "model": "m", "response": "No."}')
    with pytest.raises(ValueError, match="must have its label, model and prompt; got one without prompt"):
        read_label_set(SETS["Do-Not-Answer"], tmp_path)


def test_a_label_counts_as_its_authors_decide(tmp_path):
    (tmp_path / "judge").mkdir()
    named = ["complied", "rejected", "disclaimed", "contradicted", "incoherent"]
    rows = [{"model": "m", "prompt": "Why?", "response": "So.", "label": label} for label in named]
    (tmp_path / "judge/chatgpt_refusals.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = read_label_set(SETS["ChatGPT refusals"], tmp_path)["refused"]
    assert dict(zip(named, found, strict=True)) == {
        "complied": False, "rejected": True, "disclaimed": True, "contradicted": True, "incoherent": False,
    }  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_every_row_of_the_public_files_has_a_meaning(name):
    if not (DATA / "judge").is_dir():
        pytest.skip("the public labels are not here")
    found = read_label_set(SETS[name], DATA)
    assert {*found["refused"].map({True: 1, False: 0}).dropna()} == {0, 1}
    assert set(found["meaning"]) <= set(MEANINGS)
