"""The four public data sets: on tables of the same form, and on the real ones if they are available."""

import csv
import dataclasses
import hashlib
import json
import re
import sys
from pathlib import Path

import datasets
import pandas as pd
import pytest

from refusal_utils.prompts.categories import BENIGN, CATEGORY_IDS
from refusal_utils.prompts.files import read_prompt_file
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.prompts.public_datasets import load_source, paper_folder
from refusal_utils.prompts.public_sources import SOURCES
from tests.public_tables import COCONOT_TEST, Hub, coconot, sorrybench, wildguard, write_paper_files, xstest

DATA = Path(__file__).parent.parent.parent.parent / "shared/data"
XSTEST, COCONOT = DATA / "xstest/xstest_prompts.csv", DATA / "coconot/coconot_eval.jsonl"
XSTEST_SHA256 = "11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a"  # of the CSV on GitHub, d7bb5bd
LABELS = {
    "safety_core": 413,
    "hate_speech": 50,
    "crime_assistance": 190,
    "inappropriate": 150,
    "advice": 50,
    "safety_concerns": 395 + 3136,
    "over_refusal": 200,
    "incomplete": 225 + 3838,
    "unsupported": 157 + 1807,
    "indeterminate": 142 + 901,
    "humanizing": 82 + 1795,
    BENIGN: 490 + 250,
}


@pytest.fixture
def hub(monkeypatch) -> Hub:
    return Hub(monkeypatch)


@pytest.fixture
def rows(hub, tmp_path) -> pd.DataFrame:
    """All prompts of the hub's tables."""
    return pd.concat([load_source(name, tmp_path) for name in SOURCES], ignore_index=True)


def test_load_source_gives_every_labelled_prompt_of_the_pinned_revision(hub, rows):
    assert rows["category"].value_counts().to_dict() == LABELS
    assert rows["id"].is_unique
    assert hub.asked == [(each.hub_id, each.config, each.split, each.revision) for each in SOURCES.values()]


def test_every_revision_is_a_commit_not_a_branch():
    assert {name for name, each in SOURCES.items() if not re.fullmatch("[0-9a-f]{40}", each.revision)} == set()


def test_ids_say_the_source_row(rows):
    text = rows.set_index("id")["text"]
    vanilla = [row["prompt"] for row in wildguard() if not row["adversarial"]]
    assert text["ordinary-wildguard-500"] == vanilla[500]
    assert text["safety_core-wildguard-29"] == vanilla[29]
    assert text["humanizing-coconot-395"] == coconot(COCONOT_TEST)[395]["prompt"]
    assert text["over_refusal-xstest-25"] == xstest()[25]["prompt"]
    assert text["look_alike-xstest-0"] == xstest()[0]["prompt"]
    assert text["advice-sorrybench-431"] == "sorry 431 base"
    assert text["hate_speech-sorrybench-50"] == "sorry 50 base"


def test_splits_are_coconots_own_or_the_first_three_fifths_in_source_order(rows):
    own = rows.groupby("source")["split"].unique()
    assert (list(own["coconot"]), list(own["coconot_train"])) == (["eval"], ["train"])
    for source, category, n_train in (
        ("wildguard", "safety_core", 247),
        ("wildguard", BENIGN, 294),
        ("sorrybench", "advice", 32),
        ("sorrybench", "inappropriate", 90),
        ("xstest", "over_refusal", 120),
    ):
        splits = list(rows.loc[(rows["source"] == source) & (rows["category"] == category), "split"])
        assert splits == ["train"] * n_train + ["eval"] * (len(splits) - n_train), (source, category)


@pytest.mark.parametrize(
    ("name", "error", "reason"),
    [
        (
            "wildguard",
            datasets.exceptions.DatasetNotFoundError("Dataset 'x' is a gated dataset on the Hub.\nVisit the page."),
            r".*gated.* Accept its licence at "
            r"https://huggingface.co/datasets/allenai/wildguardmix and set HF_TOKEN, "
            r"or put its file at .*/wildguard\.jsonl\.$",
        ),
        (
            "wildguard",
            ConnectionError("Couldn't reach 'x' on the Hub (OfflineModeIsEnabled)"),
            ".*Couldn't reach.* Connect to the network, .*or put its file",
        ),
        (
            "xstest",
            datasets.exceptions.DatasetGenerationError("An error occurred while generating the dataset"),
            "'An error occurred while generating the dataset' for Paul/XSTest. Try again, or put its file",
        ),
    ],
)
def test_load_source_says_what_to_do_where_the_hub_gives_nothing(hub, tmp_path, name, error, reason):
    hub.changed[SOURCES[name].hub_id] = error
    with pytest.raises(ValueError, match=f"^read_source: {name} must be loadable from the hub; got {reason}"):
        load_source(name, tmp_path)


def test_load_source_names_the_extra_where_the_library_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"the datasets library must be installed .* Install refusal-utils\[data\]"):
        load_source("xstest", tmp_path)


def renamed(rows: list[dict], old: str, new: str) -> list[dict]:
    return [{new if name == old else name: value for name, value in row.items()} for row in rows]


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        (
            "wildguard",
            lambda: renamed(wildguard(), "prompt_harm_label", "harm"),
            "got no prompt_harm_label among prompt, ",
        ),
        ("sorrybench", lambda: renamed(sorrybench(), "prompt_style", "style"), "got no prompt_style among question_id"),
        ("xstest", lambda: xstest()[:-1], r"xstest must hold 250 'safe' prompts; got 249\."),
        (
            "coconot",
            lambda: [*coconot(COCONOT_TEST), {"category": "New", "prompt": "a"}],
            "must hold 0 'New' prompts; got 1",
        ),
        ("xstest", lambda: [*xstest()[:-1], {"label": "safe", "prompt": " "}], "must have a text; got none in row 449"),
        ("sorrybench", lambda: [*sorrybench()[:-1], {**sorrybench()[-1], "turns": []}], "must have a text; got none"),
        (
            "sorrybench",
            lambda: [{**row, "category": str(number % 45 + 1)} for number, row in enumerate(sorrybench())],
            "must hold 10 '26', .* prompts; got 9, ",  # the edition 202406, which has 45 categories
        ),
    ],
)
def test_load_source_rejects_a_data_set_that_has_changed(hub, tmp_path, name, change, reason):
    load_source(name, tmp_path)
    hub.changed[SOURCES[name].hub_id] = change()
    with pytest.raises(ValueError, match=f"^read_source: .*{reason}"):
        load_source(name, tmp_path)


def test_load_source_reads_files_as_it_reads_the_hub(hub, rows, tmp_path):
    with (tmp_path / "xstest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, xstest()[0])
        writer.writeheader()
        writer.writerows(xstest())
    (tmp_path / "wildguard.jsonl").write_text("\n".join(map(json.dumps, wildguard())))
    pd.DataFrame(sorrybench()).to_parquet(tmp_path / "sorrybench.parquet")
    hub.asked.clear()
    for name, kind in {"xstest": "csv", "wildguard": "jsonl", "sorrybench": "parquet"}.items():
        found = load_source(name, tmp_path)
        expected = rows[rows["source"] == name].reset_index(drop=True).assign(revision=f"file {name}.{kind}")
        pd.testing.assert_frame_equal(found, expected)
    assert hub.asked == []


def test_load_source_rejects_files_that_it_cannot_read(tmp_path):
    (tmp_path / "sorrybench.csv").write_text("turns\n")
    with pytest.raises(ValueError, match=r"file of sorrybench, .* must be \.jsonl or \.parquet; got .*sorrybench\.csv"):
        load_source("sorrybench", tmp_path)
    (tmp_path / "coconot.jsonl").write_text('{"prompt": ')
    with pytest.raises(ValueError, match=r"file of coconot must be readable; got .*coconot\.jsonl"):
        load_source("coconot", tmp_path)


def test_paper_folder_builds_the_papers_prompts_once(hub, rows, tmp_path):
    """With both sides of XSTest: its safe prompts are refused most often of all benign ones."""
    folder = paper_folder(tmp_path)
    read = load_prompts(source=folder)
    assert read["kind"].value_counts()["look_alike"] == 250
    columns = ["id", "category", "text", "split", "pair_id"]
    expected = rows.set_index("id", drop=False).loc[read["id"], columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(read[columns], expected)
    record = json.loads((folder / "sources.json").read_text())
    assert {name: each["revision"] for name, each in record.items()} == {
        name: source.revision for name, source in SOURCES.items()
    }
    assert record["wildguard"]["n_prompts"] == 413 + 490
    hub.asked.clear()
    assert paper_folder(tmp_path) == folder
    assert hub.asked == []


def test_paper_folder_leaves_nothing_where_the_hub_fails(hub, tmp_path):
    hub.changed["Paul/XSTest"] = ConnectionError("no network")
    with pytest.raises(ValueError, match="^read_source: xstest must be loadable"):
        paper_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_paper_folder_is_another_for_another_revision_or_file(hub, tmp_path, monkeypatch):
    for name in set(SOURCES) - {"xstest"}:
        monkeypatch.delitem(SOURCES, name)
    pinned = SOURCES["xstest"].revision
    first = paper_folder(tmp_path)
    (tmp_path / "paper_files").mkdir()
    own = tmp_path / "paper_files" / "xstest.jsonl"
    own.write_text("\n".join(map(json.dumps, xstest())))
    second = paper_folder(tmp_path)
    own.write_text("\n".join(json.dumps({**row, "prompt": f"Again,\u2028{row['prompt']}"}) for row in xstest()))
    third = paper_folder(tmp_path)
    own.unlink()
    assert paper_folder(tmp_path) == first
    monkeypatch.setitem(SOURCES, "xstest", dataclasses.replace(SOURCES["xstest"], revision="d7bb5bd"))
    fourth = paper_folder(tmp_path)
    assert len({first, second, third, fourth}) == 4
    revisions = [json.loads((each / "sources.json").read_text())["xstest"]["revision"] for each in (first, second)]
    assert revisions == [pinned, "file xstest.jsonl"]
    assert read_prompt_file(third / "over_refusal.jsonl")["text"].str.startswith("Again,\u2028").all()
    assert "Again" not in (second / "over_refusal.jsonl").read_text()


def test_paper_folder_needs_no_hub_where_the_files_are_there(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    write_paper_files(tmp_path / "paper_files")
    rows = load_prompts(source="paper", cache_dir=tmp_path)
    assert rows["category"].value_counts().to_dict() == LABELS
    (tmp_path / "paper_files" / "wildguard.jsonl").rename(tmp_path / "paper_files" / "wildguard.txt")
    place = tmp_path / "paper_files" / "wildguard.jsonl"
    with pytest.raises(ValueError, match=f"^read_source: .* Install .*, or put its file at {place}"):
        paper_folder(tmp_path)


def test_paper_folder_names_the_place_of_a_file_where_the_hub_fails(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hub.changed["allenai/coconot"] = ConnectionError("no network")
    place = tmp_path / "cache" / "paper_files"
    with pytest.raises(
        ValueError, match=rf"^read_source: (coconot\w*) must be loadable .*, or put its file at {place}/\1\.jsonl"
    ):
        paper_folder("cache")


@pytest.mark.skipif(not XSTEST.is_file(), reason="the public data sets are not here")
def test_the_real_xstest_has_the_counts(tmp_path):
    assert hashlib.sha256(XSTEST.read_bytes()).hexdigest() == XSTEST_SHA256
    (tmp_path / "xstest.csv").symlink_to(XSTEST.resolve())
    rows = load_source("xstest", tmp_path)
    assert rows["category"].value_counts().to_dict() == {"over_refusal": 200, BENIGN: 250}
    with XSTEST.open(newline="") as file:
        labels = [row["label"] for row in csv.DictReader(file)]
    assert {labels[index] for index in rows.loc[rows["category"] == "over_refusal", "source_index"]} == {"unsafe"}


@pytest.mark.skipif(not COCONOT.is_file(), reason="the public data sets are not here")
def test_the_real_coconot_has_the_counts(tmp_path):
    (tmp_path / "coconot.jsonl").symlink_to(COCONOT.resolve())
    rows = load_source("coconot", tmp_path)
    counts = {"safety_concerns": 395, "incomplete": 225, "unsupported": 157, "indeterminate": 142, "humanizing": 82}
    assert rows["category"].value_counts().to_dict() == counts
    source = [json.loads(line) for line in COCONOT.read_text("utf-8").split("\n") if line]
    assert [source[index]["prompt"] for index in rows["source_index"]] == list(rows["text"])


def test_every_category_has_one_source():
    reached = [
        category
        for name, source in SOURCES.items()
        if name != "coconot_train"
        for category in set(source.categories.values())
    ]
    assert sorted(reached) == sorted([*CATEGORY_IDS, BENIGN, BENIGN])
