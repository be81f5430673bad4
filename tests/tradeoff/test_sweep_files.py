import dataclasses
import gzip
import json

import pandas as pd
import pytest

from refusal_utils.model.chat_model import load_chat_model
from refusal_utils.steering.responses import judge_rows
from refusal_utils.tradeoff.sweep_files import load_sweep, save_sweep


@pytest.fixture
def rows():
    made = pd.DataFrame(
        {
            "id": ["a1", "b2", "007"],
            "text": ["How?", "NA", "1e5"],
            "harmful": [True, False, False],
            "response": ["I'm sorry, I can't help with that.", "", 'Two\r\nlines, "quoted", é\u2028 and more.'],
            "n_tokens": [9, 0, 12],
            "direction": ["random 0", "None", "advice"],
            "coefficient": [-0.1 / 3, 0.0, 17.123456789012345],
            "gaps": [-0.5, 0.0, float("nan")],
        }
    )
    return judge_rows(made)


def test_a_sweep_comes_back_as_it_was_with_its_place(chat, rows, tmp_path):
    path = save_sweep(rows, tmp_path / "below" / "06_sweep_bundled.jsonl.gz", chat, 4, -2)
    found, layer, pos = load_sweep(path, chat)
    assert (layer, pos) == (4, -2)
    pd.testing.assert_frame_equal(found, rows)
    assert found["styles"].map(type).eq(tuple).all()
    assert list(path.parent.iterdir()) == [path]  # nothing half-written is left beside it
    assert "draw" not in found.attrs
    noted, *_ = load_sweep(save_sweep(rows, path, chat, 4, -2, draw="0123abc"), chat)
    assert noted.attrs["draw"] == "0123abc"


def test_a_sweep_that_fails_to_be_written_leaves_the_old_one(chat, rows, tmp_path, monkeypatch):
    path = save_sweep(rows, tmp_path / "s.jsonl.gz", chat, 4, -2)

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_json", full)
        with pytest.raises(ValueError, match="save_sweep: the folder must be writable; got No space left on device"):
            save_sweep(rows.head(1), path, chat, 5, -1)
    found, layer, _ = load_sweep(path, chat)
    assert (len(found), layer) == (3, 4)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="save_sweep: a sweep must have rows; got none. Run it first."):
        save_sweep(rows.head(0), path, chat, 4, -2)


def test_a_missing_sweep_says_which_notebook_makes_it(chat, tmp_path):
    with pytest.raises(
        ValueError, match="load_sweep: the sweep must be on disk; got no .*s.gz. Run notebook 06 first."
    ):
        load_sweep(tmp_path / "s.gz", chat)


def test_a_truncated_or_broken_sweep_is_refused_in_one_sentence(chat, rows, tmp_path):
    path = save_sweep(rows, tmp_path / "s.jsonl.gz", chat, 4, -2)
    whole = path.read_bytes()
    lines = gzip.decompress(whole).splitlines()
    changed = whole[:60] + bytes([whole[60] ^ 255]) + whole[61:]
    broken = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "flipped": changed,
        "no gzip": b"id,text\na,b\n",
        "a table": gzip.compress(b"id,text\na,b\n"),
        "no notes": gzip.compress(b"\n".join(lines[1:])),
        "not a dict": gzip.compress(b"[1]\n"),
        "fewer rows": gzip.compress(b"\n".join(lines[:-1])),
        "half a row": gzip.compress(b"\n".join(lines)[:-20]),
        "no text": gzip.compress(b"\xff\xfe\xff\n"),
    }
    for name, content in broken.items():
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match="load_sweep: the file must be a whole one of save_sweep; got .*Delete"
        ) as error:
            load_sweep(path, chat)
        assert "\n" not in str(error.value), name


def test_a_sweep_of_another_model_is_refused(chat, rows, tmp_path, model_folder):
    path = save_sweep(rows, tmp_path / "s.jsonl.gz", chat, 4, -2)
    template = model_folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("'<|end|>'", "' <|end|>'"))
    other = load_chat_model(model_folder, device="cpu")
    with pytest.raises(ValueError, match="load_sweep: responses and model must belong together; got those of bundled"):
        load_sweep(path, other)
    same = dataclasses.replace(chat, name="called/otherwise")
    assert len(load_sweep(path, same)[0]) == 3
    assert json.loads(gzip.decompress(path.read_bytes()).splitlines()[0])["sweep"]["model"] == "bundled"
