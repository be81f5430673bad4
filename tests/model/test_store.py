import errno
import os
import threading
import time
from pathlib import Path

import pytest
import torch

from refusal_utils.model import store
from refusal_utils.model.store import (
    DamagedFileError,
    RowLog,
    list_files,
    one_at_a_time,
    pack,
    read_notes,
    unpack,
    write_whole,
)

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([True, False])}
NOTES = {"model": "x", "prompts": "one,two"}


def test_unpack_returns_what_was_packed():
    tensors, notes = unpack(pack(TENSORS, NOTES))
    assert notes == NOTES
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_a_change_of_any_byte_is_found():
    content = pack(TENSORS, NOTES)
    for place in range(len(content)):
        changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        with pytest.raises(DamagedFileError):
            unpack(changed)
    for size in range(0, len(content), 7):
        with pytest.raises(DamagedFileError):
            unpack(content[:size])


def test_notes_are_read_from_the_header_alone(tmp_path):
    path = write_whole(tmp_path / "deep" / "a.safetensors", pack(TENSORS, NOTES))
    assert read_notes(path).items() >= NOTES.items()
    path.write_bytes(path.read_bytes()[:-3])
    assert read_notes(path).items() >= NOTES.items()  # cut off after the header
    for content in (b"", b"\xff" * 16, (2).to_bytes(8, "little") + b"{}"):
        path.write_bytes(content)
        with pytest.raises(DamagedFileError):
            read_notes(path)


@pytest.mark.parametrize("call", ["write_bytes", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    path = write_whole(tmp_path / "a", b"old")

    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path if call == "write_bytes" else store.os, call, full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("a", b"old")]


def test_unfinished_files_are_removed_once_nobody_can_be_writing_them(tmp_path):
    for name in ("b.x", "a.x", "young.part", "old.part", "other"):
        (tmp_path / name).touch()
    os.utime(tmp_path / "old.part", (time.time() - 7200,) * 2)
    assert [path.name for path in list_files(tmp_path, ".x")] == ["a.x", "b.x"]
    assert {path.name for path in tmp_path.iterdir()} == {"a.x", "b.x", "young.part", "other"}
    assert list_files(tmp_path / "nothing", ".x") == []


def test_a_row_log_keeps_what_was_written(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    log = RowLog("generate", path)
    log.write("a", [1, 2], True)
    log.write("b", [3], False)
    assert RowLog("generate", path).values == log.values == {"a": [[1, 2], True], "b": [[3], False]}
    in_memory = RowLog("generate", None)
    in_memory.write("a", 1)
    assert in_memory.values == {"a": [1]}


def test_a_row_log_skips_a_line_that_a_killed_run_did_not_finish_and_goes_on_below_it(tmp_path, capsys):
    path = tmp_path / "rows"
    for key in ("a", "b"):
        RowLog("generate", path).write(key, 1)
    whole = path.read_bytes()
    for n_cut in range(1, len(whole) // 2):
        path.write_bytes(whole[:-n_cut])
        RowLog("generate", path).write("c", 2)
        assert RowLog("generate", path).values == {"a": [1], "c": [2]}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("line", [b"[1, 2]", b"3", b"", b"null", b'["b", [2]]', b'00000000 ["b", [2]]', b"\xff\xfe ]"])
def test_a_line_that_no_run_wrote_is_skipped_and_counted(tmp_path, line, capsys):
    path = tmp_path / "rows"
    log = RowLog("generate", path)
    log.write("a", 1)
    path.write_bytes(line + b"\n" + path.read_bytes())
    assert RowLog("generate", path).values == {"a": [1]}
    assert ("1 line of" in capsys.readouterr().err) == line.endswith(b"]")


def test_every_flipped_bit_of_a_row_log_costs_at_most_the_rows_it_touches(tmp_path):
    """A changed line break joins two rows."""
    path = tmp_path / "rows"
    log = RowLog("generate", path)
    for key in "abc":
        log.write(key, [ord(key)], True)
    whole = path.read_bytes()
    for place in range(8 * len(whole)):
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        found = RowLog("generate", path).values
        assert found.items() <= log.values.items()
        assert len(found) >= (1 if whole[place // 8 : place // 8 + 1] == b"\n" else 2)


def test_two_logs_of_one_file_see_each_others_rows(tmp_path):
    one, other = (RowLog("generate", tmp_path / "rows") for _ in range(2))
    one.write("a", 1)
    other.write("b", 2)
    other.read()
    assert other.values == {"a": [1], "b": [2]} == RowLog("generate", one.path).values


def test_one_process_at_a_time_works_on_the_same(tmp_path, capsys):
    events, begun = [], threading.Event()

    def work(name, part, until=""):
        with one_at_a_time(tmp_path, part):
            events.append(f"+{name}")
            begun.set()
            said = ""
            while until not in said:
                said += capsys.readouterr().err
                time.sleep(0.01)
            events.append(f"-{name}")

    first = threading.Thread(target=work, args=["first", "same", "Waiting for another process"])
    first.start()
    begun.wait(10)
    others = [threading.Thread(target=work, args=each) for each in (["second", "same"], ["third", "other"])]
    for each in others:
        each.start()
    for each in (first, *others):
        each.join(20)
    assert events == ["+first", "+third", "-third", "-first", "+second", "-second"]


def test_without_a_folder_or_on_a_system_without_locks_nobody_waits(tmp_path, monkeypatch):
    def none(*args, **options):
        raise OSError(errno.ENOSYS, "Function not implemented")

    inside = []
    with one_at_a_time(None, 1), one_at_a_time(None, 1):
        inside.append("no folder")
    monkeypatch.setattr(store.FileLock, "acquire", none)
    with one_at_a_time(tmp_path, 1), one_at_a_time(tmp_path, 1):
        inside.append("no locks")
    assert inside == ["no folder", "no locks"]


def test_a_row_log_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    path.touch()

    def refused(*args):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(ValueError, match="^generate: the cache must be readable and writable; got Permission denied"):
        RowLog("generate", path)


def test_a_disk_that_fills_up_inside_a_line_costs_one_row(tmp_path, monkeypatch):
    original, calls = Path.open, []

    class Full:
        """Accepts two lines and half of the third."""

        def __init__(self, file):
            self.file = file

        def write(self, line):
            calls.append(line)
            return self.file.write(line if len(calls) < 3 else line[: len(line) // 2])

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

    log = RowLog("generate", tmp_path / "rows.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, *args, **options: Full(original(path, *args, **options)))
        log.write("a", 1)
        log.write("b", 2)
        with pytest.raises(ValueError, match="^generate: the cache must be writable; got No space left on device"):
            log.write("c", 3)
    assert RowLog("generate", log.path).values == {"a": [1], "b": [2]}
