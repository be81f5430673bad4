"""Files that survive crashes: written whole or not at all, checked when read, and never deleted unless damaged."""

import errno
import hashlib
import json
import os
import sys
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from jaxtyping import Shaped
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..checks import invalid

_ZEROS = b"0" * 64  # stands for the digest while the digest is computed
_ABANDONED = 3600  # seconds after which an unfinished file belongs to a killed run, not to one that is writing it


class DamagedFileError(Exception):
    """The bytes read are not those that were written."""


def content_key(*parts: object) -> str:
    """A short key that is equal only for equal parts: numbers, texts, and lists of them.

    >>> content_key("egg", 1) == content_key("egg", 1), content_key("egg", 1) == content_key("egg", 2)
    (True, False)
    """
    return hashlib.sha256(json.dumps(parts, default=repr).encode()).hexdigest()[:24]


@contextmanager
def disk_errors(function: str, must: str, path: str | Path) -> Iterator[None]:
    """Raise `ValueError` in the name of `function` if the operating system reports an error inside the block."""
    try:
        yield
    except OSError as error:
        todo = "Free space, try again or choose another folder; what is stored is kept."
        raise invalid(function, must, f"{error.strerror or error} at {path}", todo) from error


def write_whole(path: Path, content: bytes) -> Path:
    """`path`, after writing `content` so that readers see all of it or nothing. Raises `OSError` if that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return path


def list_files(folder: Path, suffix: str) -> list[Path]:
    """The finished files of a folder in a fixed order, after removing unfinished ones that killed runs left behind.

    Raises `OSError` if the folder exists but cannot be read.
    """
    try:
        paths = [folder / name for name in sorted(os.listdir(folder))]
    except FileNotFoundError:
        return []
    for path in paths:
        with suppress(OSError):  # another process may have finished it, or the disk may be read-only
            if path.suffix == ".part" and path.stat().st_mtime < time.time() - _ABANDONED:
                path.unlink()
    return [path for path in paths if path.suffix == suffix]


def pack(tensors: Mapping[str, Shaped[Tensor, "..."]], notes: Mapping[str, str]) -> bytes:
    """The content of a safetensors file with these notes and a SHA-256 over every other byte."""
    content = save({**tensors}, {**notes, "sha256": _ZEROS.decode()})
    start = content.index(_ZEROS)
    return content[:start] + _digest(content, start) + content[start + len(_ZEROS) :]


def unpack(content: bytes) -> tuple[dict[str, Shaped[Tensor, "..."]], dict[str, str]]:
    """(tensors, notes) of a file written by `pack`. Raises `DamagedFileError` if a byte has changed."""
    try:
        notes = _notes(content[8 : 8 + int.from_bytes(content[:8], "little")])
        digest = notes.pop("sha256").encode()
        if _digest(content, content.index(digest)) != digest:
            raise DamagedFileError("the checksum does not match")
        return load(content), notes
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFileError(str(error)) from error


def read_notes(path: Path) -> dict[str, str]:
    """The notes of a file written by `pack`, without reading its tensors and therefore without checking the checksum.

    Raises `DamagedFileError` if the header is no such header, and `OSError` if the file cannot be read.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = file.read(min(size, path.stat().st_size))
    try:
        return _notes(header)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFileError(str(error)) from error


def _notes(header: bytes) -> dict[str, str]:
    return dict(json.loads(header)["__metadata__"])


def _digest(content: bytes, start: int) -> bytes:
    """The SHA-256 of `content` with zeros in the place of the digest, which begins at `start`."""
    found = hashlib.sha256(content[:start] + _ZEROS)
    found.update(memoryview(content)[start + len(_ZEROS) :])
    return found.hexdigest().encode()


class RowLog:
    """Values by key: in memory and, if a path is given, in a file that grows by one line with a checksum per value.

    Several processes may write to one file. A line that is not as it was written is skipped: its value is missing.
    Raises `ValueError` in the name of `function` for a file that cannot be read or written.
    """

    def __init__(self, function: str, path: Path | None) -> None:
        self.function, self.path = function, path
        self.values: dict[str, list[Any]] = {}
        self.read()

    def read(self) -> None:
        """Add what other processes have written since then; prints how many lines are damaged."""
        if self.path is None:
            return
        with disk_errors(self.function, "the cache must be readable and writable", self.path):
            lines = self.path.read_bytes().splitlines() if self.path.is_file() else []
        lines = [line for line in lines if line]
        found = [_checked(line) for line in lines]
        self.values.update(each for each in found if each)
        # A line that a killed run did not finish has no end.
        n_damaged = sum(each is None and line.endswith(b"]") for line, each in zip(lines, found, strict=True))
        if n_damaged:
            what = "1 line of {} fails its checksum, its row is" if n_damaged == 1 else "{n} lines of {} fail, they are"
            print(f"{self.function}: {what.format(self.path, n=n_damaged)} computed again", file=sys.stderr)

    def write(self, key: str, *value: Any) -> None:
        """Keep a value, on disk at once."""
        self.values[key] = [*value]
        if self.path is None:
            return
        content = json.dumps([key, *value]).encode()
        with disk_errors(self.function, "the cache must be writable", self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                line = b"\n" + _checksum(content) + content  # ends what a killed run may have left
                if file.write(line) < len(line):  # the half line is skipped when the file is next read
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _checksum(content: bytes) -> bytes:
    return b"%08x " % zlib.crc32(content)


def _checked(line: bytes) -> tuple[str, list[Any]] | None:
    """(key, value) of a line that is as it was written."""
    if line[:9] != _checksum(line[9:]):
        return None
    key, *value = json.loads(line[9:])
    return key, value


@contextmanager
def one_at_a_time(folder: str | Path | None, *parts: object) -> Iterator[None]:
    """Inside, no other process works on the same `parts`: whoever comes later finds the results in `folder`.

    Without a folder, or on a system without locks, nothing is waited for. A killed process leaves no lock.
    """
    if folder is None:
        yield
        return
    place = Path(tempfile.gettempdir()) / "refusal_utils_locks"  # a network disk may have no locks
    lock = FileLock(place / content_key(os.path.realpath(folder), *parts))
    with suppress(OSError, NotImplementedError):  # without a lock, the same is at worst computed twice
        place.mkdir(exist_ok=True)
        _acquire(lock)
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock) -> None:
    try:
        lock.acquire(timeout=1)
    except Timeout:
        print("Waiting for another process that computes the same", file=sys.stderr)
        lock.acquire()
