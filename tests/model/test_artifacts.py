import pandas as pd
import pytest
import torch

from refusal_utils.model.artifacts import (
    load_rows,
    load_tensors,
    model_notes,
    require_same_model,
    save_rows,
    save_tensors,
)
from refusal_utils.model.chat_model import load_chat_model

ROWS = pd.DataFrame({"prompt": ["a", "b"], "gap": [0.1 + 0.2, 1.0], "styles": [("x", "y"), ()]})


def test_tensors_come_back_bitwise_in_their_order_with_notes(tmp_path):
    tensors = {"z": torch.randn(3, 2), "a": torch.randn(4, dtype=torch.float64)[::2]}
    path = save_tensors(tmp_path / "new" / "x.safetensors", tensors, {"layer": 2, "names": "overwritten"})
    back, notes = load_tensors(path)
    assert list(back) == ["z", "a"]
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    assert notes == {"layer": 2}


def test_rows_come_back_with_lists_as_tuples(tmp_path):
    back, notes = load_rows(save_rows(tmp_path / "x.jsonl.gz", ROWS, {"layer": 2}))
    pd.testing.assert_frame_equal(back, ROWS, rtol=1e-14)
    assert notes == {"layer": 2, "n_rows": 2}
    with pytest.raises(ValueError, match="^save_rows: there must be rows; got none"):
        save_rows(tmp_path / "y.jsonl.gz", ROWS[:0], {})


def test_a_file_of_the_same_rows_has_the_same_bytes(tmp_path):
    first, second = (save_rows(tmp_path / name, ROWS, {}).read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize("content", [None, b"", b"no such file", "cut"])
def test_files_that_are_missing_damaged_or_cut_off_are_named(tmp_path, content):
    for name, save, load, what in (
        ("x.safetensors", save_tensors, load_tensors, {"a": torch.ones(3)}),
        ("x.jsonl.gz", save_rows, load_rows, ROWS),
    ):
        path = save(tmp_path / name, what, {})
        path.unlink() if content is None else path.write_bytes(path.read_bytes()[:-9] if content == "cut" else content)
        with pytest.raises(ValueError, match=f"^{load.__name__}: the file must be whole .* got {path}"):
            load(path)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="^save: the folder must be writable; got .*file"):
        save_tensors(tmp_path / "file" / "x.safetensors", {"a": torch.ones(3)}, {})


def test_results_of_another_model_are_refused(chat, model_folder):
    notes = model_notes(chat)
    require_same_model("load", notes, chat)
    other = load_chat_model(model_folder, device="cpu", system_prompt="Be kind.")
    with pytest.raises(ValueError, match="^load: file and model must belong together; got a file of bundled"):
        require_same_model("load", notes, other)
