import csv
import json

import pandas as pd
import pytest

from refusal_utils.prompts.files import read_prompt_file, split_in_order
from refusal_utils.prompts.loading import load_prompts


def test_read_prompt_file_takes_the_projects_own_files_unchanged(tmp_path):
    rows = load_prompts("benign", "eval")
    rows.to_json(tmp_path / "mine.jsonl", orient="records", lines=True)
    pd.testing.assert_frame_equal(read_prompt_file(tmp_path / "mine.jsonl"), rows)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.txt", "Should I sell my boat?\r\n\n  May I park here? \n"),
        ("mine.csv", '\ufeffprompt,note\r\n"Should I sell my boat?",x\r\n\r\n"May I park here?",y\r\n'),
        ("mine.jsonl", '{"text": "Should I sell my boat?"}\n\n{"prompt": "May I park here?", "x": 1}\n'),
        ("mine.jsonl", '{"text": "Should I sell my boat?"}\r\r\ufeff{"text": " May I park here?\\n"}\r'),
        ("mine.txt", "\ufeffShould I sell my boat?\r \rMay I park here?"),
    ],
)
def test_read_prompt_file_reads_every_form(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content.encode())
    rows = read_prompt_file(path, "advice")
    assert list(rows["text"]) == ["Should I sell my boat?", "May I park here?"]
    assert list(rows) == list(load_prompts("advice"))
    assert list(rows["id"]) == [
        "advice-mine-" + ("2" if name == "mine.csv" else "1"),
        "advice-mine-" + ("4" if name == "mine.csv" else "3"),
    ]
    assert set(rows["kind"]) == set(rows["category"]) == {"advice"}
    assert set(rows["split"]) == {"train"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.csv", 'Text;ID\n"Is it 5"" wide; or 6, or 7?";007\n"Two\nlines?";NA\n'),
        ("mine.csv", 'text,id,,\n"Is it 5"" wide; or 6, or 7?",007,,\n,,,\n"Two\nlines?",NA,,,\n'),
        ("mine.csv", 'sep=;\r\nid;text\r\n007;"Is it 5"" wide; or 6, or 7?"\r\nNA;"Two\nlines?"\r\n'),
        ("mine.csv", 'id,text\n\ufeff007,"Is it 5"" wide; or 6, or 7?"\nNA,"Two\nlines?"\n'),
        ("mine.csv", 'id, text\r007, "Is it 5"" wide; or 6, or 7?"\rNA, "Two\nlines?"\r'),
        ("mine.CSV", '\ufeffid\ttext\r\n007\t"Is it 5"" wide; or 6, or 7?"\r\nNA\t"Two\nlines?"\r\n'),
        ("mine.tsv", 'id\ttext\n007\t"Is it 5"" wide; or 6, or 7?"\nNA\t"Two\nlines?"\n'),
        ("mine.csv", 'id | prompt\n007 | Is it 5" wide; or 6, or 7?\nNA | "Two\nlines?"\n'),
    ],
)
def test_cells_are_read_with_any_usual_separator_and_ids_stay_text(tmp_path, name, content):
    (tmp_path / name).write_bytes(content.encode())
    rows = read_prompt_file(tmp_path / name, "advice")
    assert rows[["id", "text"]].to_numpy().tolist() == [
        ["007", 'Is it 5" wide; or 6, or 7?'],
        ["NA", "Two\nlines?"],
    ]


def test_a_cell_may_be_longer_than_the_csv_module_allows_by_itself(tmp_path):
    limit = csv.field_size_limit()
    (tmp_path / "a.csv").write_text(f"text\n{'long ' * limit}end\n")
    assert read_prompt_file(tmp_path / "a.csv", "advice")["text"].str.endswith("long end").all()
    assert csv.field_size_limit() == limit


def test_read_prompt_file_keeps_what_the_rows_say_of_themselves(tmp_path):
    lines = [
        {"id": "b7", "category": "benign", "text": "How do I boil an egg?", "split": "eval", "pair_id": "p"},
        {"id": "twin-b8", "category": "benign", "text": "And a duck egg?"},
        {"prompt": "Should I sell my boat?"},
    ]
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    rows = read_prompt_file(path, category="advice")
    assert rows.to_dict("list") == {
        "id": ["ordinary-b7", "twin-b8", "advice-mixed-3"],
        "category": ["benign", "benign", "advice"],
        "text": ["How do I boil an egg?", "And a duck egg?", "Should I sell my boat?"],
        "split": ["eval", "train", "train"],
        "pair_id": ["p", "", ""],
        "kind": ["ordinary", "twin", "advice"],
    }


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b'{"text": "fine"}\n{"text": ', r"invalid JSON .* at .*a\.jsonl, line 2"),
        ("a.jsonl", b'{"text": "fine"}\n\n["fine"]', r"JSON that is not an object at .*, line 3"),
        ("a.jsonl", b'{"question": "fine"}', "no text or prompt, only 'question', at .*, line 1"),
        ("a.jsonl", b'{"text": "fine", "prompt": "other"}', "a text and another prompt at .*, line 1"),
        ("a.jsonl", b'{"text": "fine", "Text": "other"}', "the field 'text' twice"),
        ("a.csv", "text,id\n\u200b,1\n".encode(), "no text or prompt at .*, line 2"),
        ("a.txt", b'fine\n{"text": "fine"}\n', r"JSON in a file of plain prompts at .*, line 2\. Let .* \.jsonl"),
        (
            "a.jsonl",
            '{"id": "\u00e9", "text": "fine"}\n{"id": "e\u0301", "text": "well"}'.encode(),
            "the id '\u00e9' of line 1 again at .*, line 2",
        ),
        ("a.jsonl", b'{"text": "fine"}\n{"text": 5}', "the text 5, which is not text, at .*, line 2"),
        ("a.jsonl", b'{"text": "fine", "split": ["eval"]}', r"the split \['eval'\], which is not text, at .*, line 1"),
        ("a.jsonl", b'{"text": "fine", "text": "other"}', r"the field 'text' twice\) at .*, line 1"),
        ("a.jsonl", b'{"text": "fine"}\n{"id": ' + b"9" * 5000 + b"}", r"invalid JSON \(.* digits.* at .*, line 2"),
        (
            "a.jsonl",
            b'{"text": "fine"}\n{"text": "smile \\ud83d please"}',
            "a character in text that is no text .* line 2",
        ),
        ("a.jsonl", b'{"text": "one\\u0000two"}', "a character in text that is no text .* line 1"),
        ("a.jsonl", b'{"id": "a\\nb", "text": "fine"}', "the id .* line break or control character, at .*, line 1"),
        (
            "a.jsonl",
            b'{"id": 7, "text": "fine"}\n{"id": "7", "text": "well"}',
            "the id '7' of line 1 again at .*, line 2",
        ),
        ("a.jsonl", b'{"text": "fine", "category": "advise"}', "the category 'advise', not one of"),
        ("a.csv", b"prompt,id\nfine,1\n\n,2\n", r"no text or prompt at .*a\.csv, line 4"),
        ("a.csv", b"text\nHow do I cook rice, beans and corn?\n", "2 cells under 1 columns at .*, line 2"),
        ("a.csv", b"note,text,,\nx,fine,,\nx,rice, beans,\n", "3 cells under 2 columns at .*, line 3"),
        ("a.csv", b"text,note\nfine,x\nwell\n", "1 cells under 2 columns at .*, line 3"),
        ("a.csv", b"text,Text\na,b\n", "the column 'text' twice at .*, line 1"),
        ("a.csv", b'text,note\nfine,x\n\n"open,x\nwell,y\n', "a quote that is opened and not closed .*, line 4"),
        ("a.csv", b'text\n"one\ntwo"\n"a "b" c"\n', "a quote that is opened and not closed .*, line 4"),
        (
            "a.csv",
            b'category,text\nadvice,"open\nbenign,well\nbenign,end"\n',
            "not closed before the row 'benign,well'.* line 2",
        ),
        ("a.csv", b'text\n"open\n' + b"well\n" * 40_000, "a quote that is opened and not closed .*, line 2"),
        ("a.csv", b"question\nfine\n", "no text or prompt, only 'question', at .*, line 2"),
        ("a.csv", b"prompt,category\nfine,advise\n", "the category 'advise', not one of safety_core, .* line 2"),
        ("a.csv", b"prompt,split\nfine,test\n", "the split 'test', not train or eval at .* line 2"),
        ("a.txt", b"fine\ncaf\xe9\n", r"got the byte 0xe9, which is not UTF-8, at .*a\.txt, line 2"),
        ("a.txt", b"fine\rcaf\xe9\r", "the byte 0xe9, which is not UTF-8, at .* line 2. Save the file as UTF-8"),
        ("a.txt", "fine".encode("utf-16"), "the byte 0xff, which is not UTF-8, at .* line 1"),
        ("a.txt", "fine".encode("utf-16-le"), "a NUL character, as in UTF-16, at .* line 1"),
        ("a.txt", b"\n", r"the file must hold prompts; got none in .*a\.txt"),
        ("a.xlsx", b"fine", r"must be a file of \.jsonl, .*\.txt; got .*a\.xlsx"),
    ],
)
def test_read_prompt_file_names_file_and_line(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"(?s)^read_prompt_file: .*{reason}"):
        read_prompt_file(tmp_path / name, "advice")


def test_read_prompt_file_needs_a_file_and_a_category(tmp_path):
    with pytest.raises(ValueError, match=r"^read_prompt_file: .*got .*none\.txt\. Check"):
        read_prompt_file(tmp_path / "none.txt", "advice")
    (tmp_path / "some.txt").write_text("fine")
    with pytest.raises(ValueError, match="got the category None"):
        read_prompt_file(tmp_path / "some.txt")


def test_a_prompt_may_hold_any_character_but_a_line_feed(tmp_path):
    text = "What does\u2028this mean\x0c, please?"
    (tmp_path / "advice.jsonl").write_text(json.dumps({"text": text}, ensure_ascii=False) + "\n", encoding="utf-8")
    (tmp_path / "advice.txt").write_text(text + "\n", encoding="utf-8")
    for name in ("advice.jsonl", "advice.txt"):
        assert list(read_prompt_file(tmp_path / name, "advice")["text"]) == [text]


def test_split_in_order_counts_each_category_for_itself():
    splits = split_in_order(["advice", "benign"] * 50)
    assert splits[::2] == splits[1::2] == ["train"] * 32 + ["eval"] * 18


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize(
    ("again", "told"),
    [
        ("should  I go?|advice|eval", ("advice, train", 2, "advice, eval")),
        ("Should\u00a0I go\uff1f|benign|", ("advice, train", 2, "benign, train")),
        ("WHY?|humanizing|eval", ("benign, eval", 3, "humanizing, eval")),
    ],
)
def test_the_same_prompt_in_both_splits_or_on_both_sides_is_named_with_file_and_line(tmp_path, header, again, told):
    lines = ["Other|benign|", "Should I go?|advice|train", "Why?|benign|", again]
    if header:
        path = tmp_path / "a.csv"
        path.write_text("\n".join(["text|category|split", *lines]))
    else:
        path, names = tmp_path / "a.jsonl", ("prompt", "category", "split")
        path.write_text("\n".join(json.dumps(dict(zip(names, line.split("|"), strict=True))) for line in lines))
    first, line, second = told
    places = f"{first}, .*, line {line + header}; {second}, .*, line {4 + header}"
    with pytest.raises(ValueError, match=f"must be in one split, and in a category or benign; got .*{places}"):
        read_prompt_file(path)
    assert len(read_prompt_file(path, repeats=True)) == 4  # before control: public data may have such rows


def test_a_prompt_that_is_there_again_has_the_split_of_the_first(tmp_path):
    texts = [f"Number {n}?" for n in range(60)]
    (tmp_path / "advice.txt").write_text("\n".join([*texts, "number  0?"]))
    read = read_prompt_file(tmp_path / "advice.txt", "advice")
    assert (read["split"].iloc[0], read["split"].iloc[-2], read["split"].iloc[-1]) == ("train", "eval", "train")
