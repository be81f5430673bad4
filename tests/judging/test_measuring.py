import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from refusal_utils.judging import Judgement, measure_judge
from refusal_utils.judging.measuring import kappa_interval, read_labelled
from refusal_utils.workflow.command_line import main


def curt(prompt: str, response: str) -> Judgement:
    """Short responses are refusals."""
    return Judgement("yes", evidence="short") if len(response) < 5 else Judgement("no")


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_the_table_is_that_of_labels_counted_by_hand(tmp_path):
    """Two sets; the second has two languages, and one of its labels is not counted."""
    one = pd.DataFrame({"prompt": ["a", "b", "c", "d"], "response": ["No.", "No.", "Because", "Since"]})
    one.assign(label=["yes", "no", "No", "partial"]).to_csv(tmp_path / "mine.csv", index=False)
    labels = [
        ("en", "1_full_compliance"),
        ("en", "2_full_refusal"),
        ("de", "3_partial_refusal"),
        ("de", "1_full_compliance"),
    ]
    texts = ["A long answer", "No.", "Nein", "Eine lange Antwort"]
    rows = [
        {"prompt": str(n), "response": text, "lang": code, "label": label, "set": "theirs"}
        for n, ((code, label), text) in enumerate(zip(labels, texts, strict=True))
    ]
    table = measure_judge([tmp_path / "mine.csv", write(tmp_path / "x.jsonl", rows)], curt, n_draws=50)
    assert table[["set", "language", "n"]].values.tolist() == [
        ["mine", "all", 4], ["theirs", "all", 4], ["theirs", "de", 2], ["theirs", "en", 2],
    ]  # fmt: skip
    assert table["accuracy"].tolist() == [0.5, 1, 1, 1]
    assert table["kappa"].tolist() == [0, 1, 1, 1]
    assert table.loc[0, ["missed", "false"]].tolist() == [0.5, 0.5]
    assert table["worst errors"][0] == "no phrase found (missed, 1); short (false, 1)"


def test_the_interval_is_that_of_a_plain_bootstrap():
    rng = np.random.default_rng(0)
    truth = rng.random(300) < 0.4
    judged = np.where(rng.random(300) < 0.15, ~truth, truth)
    found = kappa_interval(torch.tensor(judged), torch.tensor(truth), [str(n) for n in range(300)], 2000)
    rows = [rng.integers(0, 300, 300) for _ in range(2000)]
    plain = np.quantile([cohen_kappa_score(truth[row], judged[row]) for row in rows], [0.025, 0.975])
    assert found == pytest.approx(tuple(plain), abs=0.02)


def test_an_interval_counts_prompts_and_not_their_responses():
    """Ten copies of every response carry no information."""
    truth = torch.arange(40) % 2 == 0
    judged = truth ^ (torch.arange(40) % 7 == 0)
    once = kappa_interval(judged, truth, [str(n) for n in range(40)])
    copied = kappa_interval(judged.repeat(10), truth.repeat(10), [str(n) for n in range(40)] * 10)
    assert copied == pytest.approx(once)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"prompt": "a", "response": "b"}], "label missing in x.jsonl"),
        ([{"prompt": "a", "response": "b", "label": "perhaps"}], r"\['perhaps'\] in x.jsonl"),
    ],
)
def test_files_that_are_wrong_are_named(tmp_path, rows, said):
    with pytest.raises(ValueError, match=f"^read_labelled: .*{said}"):
        read_labelled(write(tmp_path / "x.jsonl", rows))
    with pytest.raises(ValueError, match="^read_labelled: labels must be in"):
        read_labelled(tmp_path / "nothing.jsonl")
    (tmp_path / "y.jsonl").write_text('{"prompt": "a"}\n{')
    with pytest.raises(ValueError, match=r"invalid JSON .* line 2"):
        read_labelled(tmp_path / "y.jsonl")


def test_the_command_prints_the_table(tmp_path, capsys):
    rows = [
        {"prompt": "How?", "response": "I'm sorry, but I can't help with that.", "label": "yes"},
        {"prompt": "How?", "response": "Boil it for six minutes.", "label": "no"},
    ]
    assert main(["judge", str(write(tmp_path / "mine.jsonl", rows))]) == 0
    line = capsys.readouterr().out.splitlines()[-1].split()
    assert line[:7] == ["mine", "all", "2", "0.0", "1.0", "1.0", "1.0"]
    assert main(["judge", str(tmp_path / "none.csv")]) == 1


def test_a_response_may_hold_any_separator_of_lines(tmp_path):
    row = {"prompt": "Why?", "response": "No,\u2028sorry.\x85Never.", "label": "yes"}
    (tmp_path / "x.jsonl").write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    assert list(read_labelled(tmp_path / "x.jsonl")["response"]) == [row["response"]]


def test_rows_without_a_set_or_language_count(tmp_path):
    rows = [{"lang": "de", "set": "a"}, {"lang": None}, {}]
    lines = [json.dumps({"prompt": "Why?", "response": "Because.", "label": "no", **row}) for row in rows]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    found = read_labelled(tmp_path / "x.jsonl")
    assert (list(found["set"]), list(found["language"])) == (["a", "x", "x"], ["de", "en", "en"])


def test_an_answer_that_corrects_the_premise_counts_as_each_set_decides(tmp_path):
    """As an answer in our definition, as a refusal for ChatGPT's authors; Do-Not-Answer has both under one label."""

    def truth(file, *labels):
        rows = [{"prompt": "Why?", "response": "Because.", "label": label} for label in labels]
        return list(read_labelled(write(tmp_path / file, rows))["refused"])

    assert truth("x.jsonl", "corrects the premise", "yes", "asks back", "broken", "open") == [False, True, True, False]
    assert truth("y.jsonl", "Contradicted", "complied", "incoherent") == [True, False, False]
    assert truth("do_not_answer_three_models.jsonl", "1", "0", "5", "2") == [True, False]


def test_what_a_judge_leaves_open_is_counted_apart(tmp_path):
    """Of three English and two German rows, one and both are open; the judge works in one batch."""

    class Batches:
        __call__ = staticmethod(curt)

        def judge_many(self, prompts, responses):
            return [Judgement("no", unjudged="language") if each == "?" else curt("", each) for each in responses]

    rows = [("en", "No.", "yes"), ("en", "Because", "no"), ("en", "?", "yes"), ("de", "?", "yes"), ("de", "?", "no")]
    lines = [dict(zip(("lang", "response", "label"), row, strict=True), prompt=str(n)) for n, row in enumerate(rows)]
    table = measure_judge([write(tmp_path / "x.jsonl", lines)], Batches(), n_draws=20).set_index("language")
    assert table["n"].to_dict() == {"all": 2, "de": 0, "en": 2}
    assert table["open"].to_dict() == pytest.approx({"all": 0.6, "de": 1, "en": 1 / 3})
    assert table["worst errors"].to_dict() == {"all": "none", "de": "", "en": "none"}


def test_the_three_worst_errors_are_named_by_forty_characters(tmp_path):
    kinds = {"a" * 41: 4, "b": 3, "c": 2, "d": 1}
    rows = [{"prompt": "?", "response": kind, "label": "no"} for kind, n in kinds.items() for _ in range(n)]
    rows += [{"prompt": "?", "response": "e", "label": "yes"}]
    table = measure_judge(
        [write(tmp_path / "x.jsonl", rows)], lambda prompt, response: Judgement("yes", evidence=response), n_draws=2
    )
    assert table["worst errors"][0] == f"{'a' * 40} (false, 4); b (false, 3); c (false, 2)"


def test_labels_0_and_1_are_not_guessed(tmp_path):
    (tmp_path / "x.csv").write_text("prompt,response,label\nWhy?,Because.,0\nWhy?,No.,1\n")
    with pytest.raises(ValueError, match="^read_labelled: the labels of a file must be ours"):
        read_labelled(tmp_path / "x.csv")
