import json
import os
import re
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from refusal_utils.model import activation_store as module
from refusal_utils.model import store as store_module
from refusal_utils.model.activation_store import ActivationStore
from refusal_utils.model.capture import capture_activations
from refusal_utils.model.store import read_notes

PROMPTS = [f"prompt {number}" for number in range(10)]
BATCHES = [[0, 1, 2, 3], [4, 5, 6], [7, 8], [9]]
VALUES = torch.randn(10, 2, 3, 4, generator=torch.Generator().manual_seed(0))
NAMES = ("blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre")


def files(folder):
    return sorted(folder.rglob("*.safetensors"))


def opened(chat, folder, names=NAMES):
    return ActivationStore(folder, chat, names, (-3, -2, -1))


def filled(chat, folder):
    """A store with ten prompts in four files."""
    store = opened(chat, folder)
    for rows in BATCHES:
        store.write([PROMPTS[row] for row in rows], VALUES[rows])
    return store


def found(store, prompts=PROMPTS):
    """The stored activations by prompt; each is checked to be what was written."""
    rows = {row: value for batch, values in store.read(prompts) for row, value in zip(batch, values, strict=True)}
    assert all(torch.equal(value, VALUES[PROMPTS.index(prompts[row])]) for row, value in rows.items())
    return {prompts[row] for row in rows}


def with_header(content, change):
    """The bytes of a safetensors file after `change` of its header."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    change(header, header.get("__metadata__"), header["activations"])
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def swap_keys(header, notes, values):
    keys = notes["prompts"].split(",")
    notes["prompts"] = ",".join([keys[1], keys[0], *keys[2:]])


def flip_key(header, notes, values):
    notes["prompts"] = ("1" if notes["prompts"][0] == "0" else "0") + notes["prompts"][1:]


def change_shape(header, notes, values):
    n, n_layers, n_positions, d_model = values["shape"]
    values["shape"] = [n, n_positions, n_layers, d_model]


DAMAGE = {
    "truncate": lambda content: content[: len(content) // 2],
    "flip": lambda content: content[:-5] + bytes([content[-5] ^ 1]) + content[-4:],
    "empty": lambda content: b"",
    "keys swapped": lambda content: with_header(content, swap_keys),
    "key flipped": lambda content: with_header(content, flip_key),
    "shape": lambda content: with_header(content, change_shape),
    "dtype": lambda content: with_header(content, lambda header, notes, values: values.update(dtype="I32")),
    "context": lambda content: with_header(content, lambda header, notes, values: notes.update(context="{}")),
    "no notes": lambda content: with_header(content, lambda header, notes, values: header.pop("__metadata__")),
}


def test_what_was_written_is_found_in_any_order(chat, tmp_path):
    filled(chat, tmp_path)
    assert found(opened(chat, tmp_path)) == set(PROMPTS)
    assert found(opened(chat, tmp_path), [PROMPTS[9], "unknown", PROMPTS[2], PROMPTS[9]]) == {PROMPTS[9], PROMPTS[2]}
    assert not found(opened(chat, tmp_path / "other"))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_and_removed(chat, tmp_path, capsys, damage):
    filled(chat, tmp_path)
    path = max(files(tmp_path), key=lambda each: each.stat().st_size)  # the one of four prompts
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    assert found(opened(chat, tmp_path)) == set(PROMPTS[4:])
    printed = capsys.readouterr().err
    assert [each.name for each in (*files(tmp_path), path) if each.name in printed] == [path.name]
    assert not path.exists()


def test_a_damaged_file_that_cannot_be_removed_is_not_read(chat, tmp_path, monkeypatch):
    filled(chat, tmp_path)
    path = max(files(tmp_path), key=lambda each: each.stat().st_size)
    path.write_bytes(DAMAGE["flip"](path.read_bytes()))

    def forbidden(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", forbidden)
    assert found(opened(chat, tmp_path)) == set(PROMPTS[4:])


@pytest.mark.parametrize("call", ["open", "read_bytes"])
def test_a_file_that_cannot_be_opened_is_kept(chat, tmp_path, monkeypatch, call):
    filled(chat, tmp_path)
    before = {path: path.read_bytes() for path in files(tmp_path)}

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, call, refuse)
        words = r"^capture_activations: the cache must be readable; got Permission denied at .*safetensors"
        with pytest.raises(ValueError, match=words):
            found(opened(chat, tmp_path))
    assert {path: path.read_bytes() for path in files(tmp_path)} == before


@pytest.mark.parametrize("n_spare", [0, 1, 2])
def test_running_out_of_file_descriptors_costs_no_file(chat, tmp_path, n_spare):
    filled(chat, tmp_path)
    before = {path: path.read_bytes() for path in files(tmp_path)}
    lowest_free = os.dup(0)
    os.close(lowest_free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + n_spare, hard))
    try:
        assert found(opened(chat, tmp_path)) == set(PROMPTS)
        assert n_spare > 0
    except ValueError as error:
        assert re.search("the cache must be readable; got Too many open files", str(error))  # noqa: PT017
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert {path: path.read_bytes() for path in files(tmp_path)} == before


@pytest.mark.parametrize("when", ["before it is opened", "before it is read"])
def test_a_file_that_another_process_removes_counts_as_not_stored(chat, tmp_path, monkeypatch, capsys, when):
    filled(chat, tmp_path)
    path = max(files(tmp_path), key=lambda each: each.stat().st_size)
    listed = files(tmp_path)
    if when == "before it is opened":
        path.unlink()
        monkeypatch.setattr(module, "list_files", lambda *args: listed)
    store = opened(chat, tmp_path)
    path.unlink(missing_ok=True)
    assert found(store) == set(PROMPTS[4:])
    assert capsys.readouterr().err == ""


def test_a_sound_file_of_another_question_is_neither_read_nor_removed(chat, tmp_path, capsys):
    filled(chat, tmp_path / "a")
    other = opened(chat, tmp_path / "b", NAMES[::-1])
    other.write(PROMPTS[:4], VALUES[:4])
    source, target = files(tmp_path / "a")[0], files(tmp_path / "b")[0]
    shutil.copy(source, target)
    before = target.read_bytes()
    assert not found(opened(chat, tmp_path / "b", NAMES[::-1]))
    assert target.read_bytes() == before
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("call", ["write_bytes", "replace"])
def test_a_full_disk_is_an_error_and_costs_nothing(chat, tmp_path, monkeypatch, call):
    store = filled(chat, tmp_path)
    before = {path: path.read_bytes() for path in files(tmp_path)}

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path if call == "write_bytes" else store_module.os, call, full)
        with pytest.raises(ValueError, match="^capture_activations: the cache must be writable; got No space left"):
            store.write(["new"], VALUES[:1])
    assert {path: path.read_bytes() for path in files(tmp_path)} == before
    assert not list(tmp_path.rglob("*.part"))


def test_a_prompt_captured_before_among_others_keeps_its_bits(chat, prompts, tmp_path):
    first = capture_activations(chat, prompts[:20], cache_dir=tmp_path)
    overlapping = capture_activations(chat, prompts[10:40], cache_dir=tmp_path)
    assert torch.equal(overlapping.values[:10], first.values[10:])
    assert overlapping.n_captured == 20
    again = capture_activations(chat, prompts[10:40], cache_dir=tmp_path)
    assert again.n_captured == 0
    assert torch.equal(again.values, overlapping.values)
    keys = [read_notes(path)["prompts"].split(",") for path in files(tmp_path)]
    assert len(keys) == 2
    assert set(keys[0]).isdisjoint(keys[1])


def forked(work):
    """Run `work` in a child process with everything that is loaded here; returns its id."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # the parent's threads do not exist here, and OpenMP would wait for them
        work()
        os._exit(0)
    return child


def test_a_process_killed_while_it_writes_costs_one_batch(chat, tmp_path, capsys):
    def killed_at_the_third_file():
        replace, done = os.replace, []

        def killed(*paths):
            if len(done) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(replace(*paths))

        store_module.os.replace = killed
        filled(chat, tmp_path)

    status = os.waitpid(forked(killed_at_the_third_file), 0)[1]
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert len(files(tmp_path)) == 2
    (unfinished,) = (path for path in tmp_path.rglob(".*") if path.suffix == ".part")
    assert found(opened(chat, tmp_path)) == set(PROMPTS[:7])
    assert capsys.readouterr().err == ""
    assert unfinished.exists()  # it is young: another process may be writing it
    os.utime(unfinished, (time.time() - 7200,) * 2)
    filled(chat, tmp_path)
    assert found(opened(chat, tmp_path)) == set(PROMPTS)
    assert not unfinished.exists()


def test_two_processes_may_write_the_same_files_while_a_third_reads(chat, tmp_path, capsys):
    def write():
        for _ in range(30):
            filled(chat, tmp_path)

    filled(chat, tmp_path)
    children = {forked(write) for _ in range(2)}
    while children:
        assert found(opened(chat, tmp_path)) == set(PROMPTS)
        child, status = os.waitpid(-1, os.WNOHANG)
        assert status == 0
        children -= {child}
    assert capsys.readouterr().err == ""
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".safetensors"}
