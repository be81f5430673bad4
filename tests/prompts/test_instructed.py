import pytest

from refusal_utils.prompts.instructed import load_instructed
from refusal_utils.prompts.loading import load_prompts


def test_every_question_is_on_topic_in_one_pair_and_off_topic_in_another():
    rows = load_instructed()
    assert len(rows) == 320
    assert rows["id"].is_unique
    off, on = (rows[rows["on_topic"] == side] for side in (False, True))
    assert sorted(off["text"]) == sorted(on["text"])
    assert off["text"].is_unique
    topic = dict(zip(on["text"], on["system"], strict=True))
    assert (off["text"].map(topic) != off["system"]).all()
    assert off.groupby("system").size().eq(10).all()
    assert set(on["system"]) == set(off["system"])
    for _, pair in rows.groupby("pair_id"):
        assert pair["system"].nunique() == 1
    train, held_out = (set(load_instructed(split=split)["system"]) for split in ("train", "eval"))
    assert (len(train), len(held_out)) == (10, 6)
    assert not train & held_out


def test_these_questions_are_in_no_other_file():
    assert not set(load_instructed()["text"]) & set(load_prompts()["text"])


def test_files_of_ones_own_are_read_and_broken_ones_named(tmp_path):
    path = tmp_path / "mine.csv"
    head = "id,pair_id,system,text,split,on_topic\n"
    good = "a,p,Only chess.,What is a fork?,train,True\nb,p,Only chess.,What is a spoon?,train,False\n"
    path.write_text(head + good)
    assert load_instructed(path)["on_topic"].to_list() == [True, False]
    for content, message in (
        (head + good.replace("False", "perhaps"), r"on_topic \(true or false\) at .*mine.csv, line 3"),
        (head + good.replace("b,p,Only chess.", "b,p,"), "no id, pair_id, system, .* line 3"),
        (head + good.replace("False", "True"), r"load_instructed: every pair must .*; got others in \['p'\]"),
        (head, "load_instructed: every pair must"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            load_instructed(path)
    with pytest.raises(ValueError, match="^load_instructed: source must be 'builtin' or a file"):
        load_instructed("chess")
    with pytest.raises(ValueError, match="^load_instructed: split must be train or eval; got 'test'"):
        load_instructed(split="test")
