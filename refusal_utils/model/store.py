"""Files that survive crashes: written whole or not at all, checked when read, and never deleted unless damaged."""

import errno
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

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
    """Values by key: in memory and, if a path is given, in a file of JSON lines that grows by one line per value.

    Raises `ValueError` in the name of `function` for a file that cannot be read or written, or has a broken line.
    """

    def __init__(self, function: str, path: Path | None) -> None:
        self.function, self.path = function, path
        self.values: dict[str, list[Any]] = {}
        if path is not None and path.is_file():
            with disk_errors(function, "the cache must be readable and writable", path):
                self._load(path)

    def write(self, key: str, *value: Any) -> None:
        """Keep a value, on disk at once."""
        self.values[key] = [*value]
        if self.path is None:
            return
        line = json.dumps([key, *value]).encode() + b"\n"
        with disk_errors(self.function, "the cache must be writable", self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                if file.write(line) < len(line):  # the half line is removed when the file is next read
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _load(self, path: Path) -> None:
        *lines, rest = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                key, *value = json.loads(line)
                self.values[str.strip(key)] = value
            except (ValueError, TypeError) as error:
                must, got = "every line of the results must be whole", f"a broken one at {path}:{number}"
                raise invalid(self.function, must, got, "Delete that line; the others are kept.") from error
        if rest:  # a run was killed in the middle of a line: that row is computed again
            with path.open("rb+") as file:
                file.truncate(path.stat().st_size - len(rest))
