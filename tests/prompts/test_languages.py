"""Parallel prompts in six languages, and what is refused in files of other people."""

import json
import re

import pytest

from refusal_utils.prompts.files import read_prompt_file
from refusal_utils.prompts.languages import load_languages
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.prompts.text_features import folded

HAN, KANA = re.compile("[\u4e00-\u9fff]"), re.compile("[\u3040-\u30ff]")
LETTERS = {"de": "äöüß", "fr": "éèàêç", "es": "áéíóñ¿"}


def test_the_built_in_prompts_are_thirty_parallel_ones_in_each_language():
    rows = load_languages(languages=["en", "de", "fr", "es", "zh", "ja"])
    assert list(rows["language"].value_counts(sort=False)[:6].items()) == [
        (code, 30) for code in ("en", "de", "fr", "es", "zh", "ja")
    ]
    for column in ("pair_id", "harmful", "category"):
        own = rows[column].to_numpy().reshape(6, 30)
        assert (own == own[0]).all()
    assert rows["harmful"].sum() == 90
    assert rows["text"].map(folded).is_unique
    assert set(rows["split"]) == {"eval"}


def test_each_file_is_written_in_its_language():
    texts = load_languages().groupby("language")["text"].agg("\n".join)
    assert texts["en"].isascii()
    for code, letters in LETTERS.items():
        assert set(letters) <= set(texts[code])
        assert not HAN.search(texts[code])
    assert not KANA.search(texts["zh"])
    rows = load_languages()
    assert rows["text"][rows["language"] == "ja"].map(lambda text: bool(KANA.search(text))).all()
    assert rows["text"][rows["language"] == "zh"].map(lambda text: bool(HAN.search(text))).all()


def test_no_prompt_is_among_the_other_built_in_ones():
    rows = load_languages()
    assert not set(rows["text"].map(folded)) & set(load_prompts()["text"].map(folded))


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def parallel(codes=("en", "pt_BR"), pairs=("1", "2")):
    return [
        {"text": f"{kind} {pair} {code}", "category": kind, "pair_id": pair, "language": code}
        for code in codes
        for kind in ("advice", "benign")
        for pair in pairs
    ]


def test_own_files_are_ordered_as_asked_and_row_i_translates_row_i(tmp_path):
    rows = parallel()
    written(tmp_path / "b.jsonl", rows[:3][::-1])
    written(tmp_path / "a.jsonl", rows[3:])
    found = load_languages(tmp_path, ["pt-br", "en"])
    assert list(found["text"]) == [
        f"{kind} {pair} {code}" for code in ("pt_BR", "en") for kind in ("advice", "benign") for pair in "12"
    ]
    assert list(found["language"]) == ["pt-br"] * 4 + ["en"] * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], "every pair_id must have .*; got 0 benign of '2' in pt-br"),
        (
            lambda rows: [*rows, {**rows[0], "text": "another"}],
            "every pair_id must have .*; got 2 to refuse of '1' in en",
        ),
        (lambda rows: rows[:4], "there must be at least two languages; got en"),
        (
            lambda rows: [{**rows[0], "language": ""}, *rows[1:]],
            "every prompt must name its language; got none for .*a-1",
        ),
        (lambda rows: [{**row, "language": ""} for row in rows], "every prompt must name its language"),
        (lambda rows: [{**row, "pair_id": ""} for row in rows], "every pair_id must have .*; got 2 to refuse of ''"),
    ],
)
def test_prompts_that_are_not_parallel_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=f"^load_languages: {message}"):
        load_languages(written(tmp_path / "a.jsonl", change(parallel())))


def test_unknown_sources_languages_and_codes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="^load_languages: source must be"):
        load_languages(tmp_path / "nothing")
    with pytest.raises(ValueError, match="^load_languages: a language must be one of .*; got 'english'"):
        load_languages(languages=["english", "de"])
    with pytest.raises(ValueError, match="the language 'in german', not a code such as de or pt-br at .*line 1"):
        read_prompt_file(written(tmp_path / "a.jsonl", [{"text": "a", "category": "advice", "language": "in German"}]))


def test_the_column_is_there_only_if_a_prompt_names_a_language(tmp_path):
    assert "language" not in load_prompts("advice")
    rows = load_prompts().drop(columns="kind")
    some = rows.assign(language=["de" if name == "advice" else "" for name in rows["category"]])
    some[some["category"] == "advice"].to_json(tmp_path / "advice.jsonl", orient="records", lines=True)
    for name, own in rows[rows["category"] != "advice"].groupby("category"):
        own.to_json(tmp_path / f"{name}.jsonl", orient="records", lines=True)
    found = load_prompts(source=tmp_path)
    assert found["language"].eq("de").equals(found["category"].eq("advice"))
    assert set(found["language"]) == {"de", ""}
