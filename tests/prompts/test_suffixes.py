import pytest

from refusal_utils.prompts.suffixes import load_suffixes, with_suffixes


def test_the_built_in_suffixes_are_eight_of_each_neutral_kind():
    found = load_suffixes()
    assert found["kind"].value_counts(sort=False).to_dict() == {"politeness": 8, "format": 8, "nonsense": 8}
    assert found["suffix"].is_unique
    assert found["suffix"].str.split().str.len().max() <= 8


def test_files_give_their_suffixes_and_every_prompt_meets_every_suffix(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text('text;kind\n"Answer; now.";order\nPlease.;\n')
    found = load_suffixes(path)
    assert found.to_numpy().tolist() == [["mine-2", "order", "Answer; now."], ["mine-3", "", "Please."]]
    pairs = with_suffixes(load_suffixes().head(3).rename(columns={"suffix_id": "id", "suffix": "text"}), found)
    assert len(pairs) == 6
    assert set(pairs) == {"id", "text", "kind", "suffix_id", "suffix_kind", "suffix"}


def test_broken_files_are_refused(tmp_path):
    path = tmp_path / "mine.jsonl"
    for content, message in (
        ('{"kind": "x"}\n', "no text at .*line 1"),
        ('{"text": ["a"]}\n', "the text .*, which is not text, at .*line 1"),
        ("", "load_suffixes: the file must hold suffixes"),
        ('{"text": "a", "id": "1"}\n{"text": "b", "id": "1"}\n', "load_suffixes: ids must be unique"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            load_suffixes(path)
    with pytest.raises(ValueError, match="^load_suffixes: source must be"):
        load_suffixes(tmp_path / "mine.txt")
