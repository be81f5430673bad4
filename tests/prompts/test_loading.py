import inspect
import json

import pandas as pd
import pytest

from refusal_utils.prompts import loading
from refusal_utils.prompts.categories import ALL_CATEGORIES
from refusal_utils.prompts.draws import draw_prompts
from refusal_utils.prompts.files import split_in_order
from refusal_utils.prompts.instructed import load_instructed
from refusal_utils.prompts.languages import load_languages
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.prompts.suffixes import load_suffixes
from refusal_utils.prompts.twins import contrast_pairs


@pytest.fixture(scope="module")
def prompts() -> pd.DataFrame:
    return load_prompts()


def test_load_prompts_takes_category_and_split(prompts):
    some = load_prompts("humanizing", "eval")
    expected = prompts[(prompts["category"] == "humanizing") & (prompts["split"] == "eval")]
    assert list(some["id"]) == list(expected["id"])


def test_load_prompts_rejects_unknown_names():
    with pytest.raises(ValueError, match="^load_prompts: the category must be a known one; got 'violence'"):
        load_prompts("violence")
    with pytest.raises(ValueError, match="^load_prompts: the split must be a known one; got 'test'"):
        load_prompts(split="test")


def test_load_prompts_reads_a_folder_like_the_built_in_one(prompts, tmp_path):
    folder = tmp_path
    for name, own in prompts.groupby("category"):
        own.to_json(folder / f"{name}.jsonl", orient="records", lines=True)
    pd.testing.assert_frame_equal(load_prompts(source=folder), prompts)
    pd.testing.assert_frame_equal(load_prompts("advice", "eval", source=folder), load_prompts("advice", "eval"))
    (folder / "advice.jsonl").unlink()
    with pytest.raises(ValueError, match="^load_prompts: there must be prompts of every category .*; got no advice in"):
        load_prompts(source=folder)


@pytest.mark.parametrize("kind", [".jsonl", ".csv"])
def test_load_prompts_reads_one_file_in_the_order_of_the_categories(prompts, tmp_path, kind):
    rows = prompts.groupby("category").head(3).sample(frac=1, random_state=0)
    file = tmp_path / f"mine{kind}"
    if kind == ".jsonl":
        rows.to_json(file, orient="records", lines=True)
    else:
        rows.to_csv(file)  # with the unnamed column of the index
    read = load_prompts(source=file)
    assert list(dict.fromkeys(read["category"])) == list(ALL_CATEGORIES)
    assert dict(zip(read["id"], read["text"], strict=True)) == dict(zip(rows["id"], rows["text"], strict=True))
    assert list(load_prompts("advice", source=str(file))["id"]) == list(rows.loc[rows["category"] == "advice", "id"])


def test_load_prompts_reads_a_folder_with_a_file_of_any_format_per_category(prompts, tmp_path):
    rows = prompts.groupby("category").head(40)
    for number, (name, each) in enumerate(rows.groupby("category")):
        if number % 3 == 0:
            (tmp_path / f"{name}.txt").write_text("\n".join(each["text"]) + "\n")
        elif number % 3 == 1:
            each[["text"]].to_csv(tmp_path / f"{name}.csv", index=False)
        else:
            each[["text"]].to_json(tmp_path / f"{name}.jsonl", orient="records", lines=True)
    (tmp_path / "notes.txt").write_text("not a category")
    read = load_prompts(source=tmp_path)
    expected = rows.assign(split=split_in_order(rows["category"]))
    keys = ["category", "text", "split"]
    found, wanted = (frame[keys].sort_values(keys).to_numpy().tolist() for frame in (read, expected))
    assert found == wanted


def test_load_prompts_rejects_sources_that_lack_a_category(tmp_path):
    with pytest.raises(ValueError, match="^load_prompts: source must be .* a folder with a file for every category"):
        load_prompts(source=tmp_path)
    load_prompts("advice").to_csv(tmp_path / "advice.csv")
    for source in (tmp_path / "advice.csv", tmp_path):
        with pytest.raises(ValueError, match="^load_prompts: .* got no safety_core, .*benign in"):
            load_prompts(source=source)
        assert len(load_prompts("advice", source=source)) == len(load_prompts("advice"))


def test_load_prompts_rejects_what_is_no_source(tmp_path):
    for name in ("mine.txt", "mine.md"):
        (tmp_path / name).write_text("How do I boil an egg?")
    for wrong in (str(tmp_path / "mine.txt"), str(tmp_path / "mine.md"), str(tmp_path / "none.csv"), "papers"):
        with pytest.raises(ValueError, match=f"^load_prompts: source must be .*; got {wrong!r}"):
            load_prompts(source=wrong)


def test_load_prompts_rejects_an_id_that_occurs_twice(tmp_path):
    row = {"id": "advice-1", "category": "advice", "text": "Should I sell my boat?"}
    (tmp_path / "mine.jsonl").write_text("\n".join([json.dumps(row)] * 2))
    with pytest.raises(ValueError, match=r"got the id 'advice-1' of line 1 again at .*mine\.jsonl, line 2"):
        load_prompts("advice", source=tmp_path / "mine.jsonl")
    for name in ("advice", "hate_speech"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row | {"category": name}))
    (tmp_path / "mine.jsonl").unlink()
    with pytest.raises(
        ValueError, match=r"^load_prompts: ids must be unique; got 'advice-1' in .*advice.jsonl and .*hate_speech"
    ):
        load_prompts("advice", source=tmp_path)


def test_load_prompts_rejects_two_files_for_one_category(tmp_path):
    for category in ALL_CATEGORIES:
        (tmp_path / f"{category}.jsonl").write_text(json.dumps({"text": f"What about {category}?"}), "utf-8-sig")
    assert len(load_prompts(source=tmp_path)) == len(ALL_CATEGORIES)
    (tmp_path / "advice.TXT").write_text("Should I sell my boat?")
    with pytest.raises(
        ValueError, match=r"^load_prompts: a category must have one file; got advice\.TXT, advice\.jsonl"
    ):
        load_prompts(source=tmp_path)


def test_the_same_prompt_in_two_files_is_named_with_both(tmp_path):
    for name in ALL_CATEGORIES:
        (tmp_path / f"{name}.txt").write_text(f"Tell me about {name}.\nWhat is {name}?\n")
    assert len(load_prompts(source=tmp_path)) == 2 * len(ALL_CATEGORIES)
    (tmp_path / "humanizing.txt").write_text("tell me about advice.\n")  # two refused categories may share a prompt
    assert len(load_prompts(source=tmp_path)) == 2 * len(ALL_CATEGORIES) - 1
    (tmp_path / "benign.txt").write_text("Is it late?\n\n WHAT is  advice?\n")
    with pytest.raises(
        ValueError, match=r"^load_prompts: .* twice \(advice, .*advice.txt, line 2; .*benign.txt, line 3"
    ):
        load_prompts(source=tmp_path)


@pytest.mark.parametrize("source", [3, None, ["builtin"], b"builtin"])
def test_a_source_that_is_no_path_is_one_sentence_in_every_loader(source):
    must = "source must be a text or a path; got "
    loaders = {"load_languages": load_languages, "load_suffixes": load_suffixes, "load_instructed": load_instructed}
    for name, loader in loaders.items():
        with pytest.raises(ValueError, match=f"^{name}: {must}"):
            inspect.unwrap(loader)(source)  # tests check types of signatures
    with pytest.raises(ValueError, match=f"^load_prompts: {must}"):
        inspect.unwrap(loading._prompt_files)(source, ".cache")


@pytest.mark.parametrize("n", ["4", 1.5, None, True])
def test_a_number_of_prompts_is_whole(n):
    rows = load_prompts(split="eval")
    for name, call in {"draw_prompts": draw_prompts, "contrast_pairs": contrast_pairs}.items():
        with pytest.raises(ValueError, match=f"^{name}: n must be a whole number; got "):
            inspect.unwrap(call)(rows, **({"select_by": "label"} if call is draw_prompts else {}), n=n)
