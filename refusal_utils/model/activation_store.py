"""Activations on disk: one file per batch, found again by the token ids of each prompt, checked before it is used.

Only what is known to be damaged is ever removed; a file that cannot be opened at the moment is kept, and said to be so.
"""

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .chat_model import ChatModel

ABANDONED = 3600  # seconds after which an unfinished file is that of a killed run, not of one that is writing
DTYPES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64"}  # in the file
T = TypeVar("T")


class ActivationStore:
    """The batches under `root` that were captured by `chat` at the hooks `names` and at `positions`.

    Raises `ValueError` for a folder or file that is there but cannot be read.
    """

    def __init__(self, root: Path, chat: ChatModel, names: Sequence[str], positions: Sequence[int]) -> None:
        parts = {
            "model": chat.fingerprint,
            "hooks": list(names),
            "positions": list(positions),
            "dtype": str(chat.dtype),
        }
        self.context = json.dumps(parts)
        self.folder = root / hashlib.sha256(self.context.encode()).hexdigest()[:16]
        self.loaded: dict[Path, Tensor] = {}
        self.where: dict[str, tuple[Path, int]] = {}
        for path in self._files():
            keys = self._opened(path, lambda file, notes: notes["prompts"].split(",")) or []
            self.where.update({key: (path, row) for row, key in enumerate(keys)})

    def read(self, ids: Sequence[Sequence[int]]) -> list[Float[Tensor, "layer pos d_model"] | None]:
        """The stored values of each of these encoded prompts; None for one that is not there, or not sound.

        Raises `ValueError` for a file that is there but cannot be read.
        """
        return [self._row(_key(each)) for each in ids]

    def write(self, ids: Sequence[Sequence[int]], values: Float[Tensor, "batch layer pos d_model"]) -> None:
        """Write one batch so that readers, and writers of the same batch, see all of it or nothing.

        Raises `ValueError` where the folder cannot be written to.
        """
        keys, values = [_key(each) for each in ids], values.contiguous()
        notes = {"prompts": ",".join(keys), "sha256": _sha256(values), "context": self.context}
        notes["header"] = _header(notes, values.shape, DTYPES[values.dtype])
        path = self.folder / f"{_key(keys)}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.folder, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(save({"activations": values}, notes))
                os.replace(temporary, path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ValueError(
                f"capture_activations: the cache must be writable; got {error.strerror} at {self.folder}. "
                "Free space or choose another cache_dir; what is cached already is kept."
            ) from error

    def _files(self) -> list[Path]:
        """The finished files, in a fixed order; unfinished ones that killed runs have left behind are removed."""
        try:
            paths = [self.folder / name for name in sorted(os.listdir(self.folder))]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(self.folder, error) from error
        for path in paths:
            with suppress(OSError):  # another process may have finished it, or the disk may be read-only
                if path.suffix == ".part" and path.stat().st_mtime < time.time() - ABANDONED:
                    path.unlink()
        return [path for path in paths if path.suffix == ".safetensors"]

    def _row(self, key: str) -> Tensor | None:
        path, row = self.where.get(key, (None, 0))
        values = self._load(path) if path else None
        return None if values is None else values[row]

    def _load(self, path: Path) -> Tensor | None:
        if path not in self.loaded:
            values = self._opened(path, _sound_values)
            if values is None:
                return None
            # Batches are read in the order in which they were written: the last few files are enough.
            while len(self.loaded) >= 4:
                self.loaded.pop(next(iter(self.loaded)))
            self.loaded[path] = values
        return self.loaded[path]

    def _opened(self, path: Path, take: Callable[[Any, dict[str, str]], T]) -> T | None:
        """What `take` makes of the open file and its notes; None for one that is damaged, gone, or not of this store."""
        try:
            with safe_open(path, "pt") as file:
                notes = file.metadata()
                if "header" not in notes and "sha256" in notes:
                    return None  # from before headers were covered: not to be trusted, and nobody's fault
                _require_sound_header(file, notes)
                return take(file, notes) if notes["context"] == self.context else None
        except (SafetensorError, KeyError, TypeError):
            self._discard(path)
        except (OSError, RuntimeError) as error:  # torch opens the file once more, and reports that in its own way
            _require_gone(path, error)
        return None

    def _discard(self, path: Path) -> None:
        print(f"capture_activations: {path} fails its checksum, its prompts are computed again", file=sys.stderr)
        self.where = {key: place for key, place in self.where.items() if place[0] != path}
        with suppress(OSError):
            path.unlink()


def _require_sound_header(file: Any, notes: dict[str, str]) -> None:
    rows = file.get_slice("activations")
    shape, dtype = rows.get_shape(), rows.get_dtype()
    if notes["header"] != _header(notes, shape, dtype) or len(notes["prompts"].split(",")) != shape[0]:
        raise SafetensorError("the header is not the one that was written")


def _sound_values(file: Any, notes: dict[str, str]) -> Tensor:
    values = file.get_tensor("activations")
    if _sha256(values) != notes["sha256"]:
        raise SafetensorError("the values are not those that were written")
    return values


def _require_gone(path: Path, error: Exception) -> None:
    """Raise `ValueError` unless the file is not there any more: what is there must not be taken for damaged."""
    try:
        path.open("rb").close()
    except FileNotFoundError:
        return
    except OSError as reason:  # safetensors calls any failure to open a file "not found"
        error = reason
    raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"capture_activations: the cache must be readable; got {getattr(error, 'strerror', None) or error} at {path}. "
        "Try again, or choose another cache_dir; what is cached is kept."
    )


def _key(items: Sequence[object]) -> str:
    return hashlib.sha256(repr([*items]).encode()).hexdigest()[:24]


def _header(notes: dict[str, str], shape: Sequence[int], dtype: str) -> str:
    """A digest over all that says which values these are: prompts, their order, shape, dtype, model, hooks."""
    parts = [notes["prompts"], notes["context"], notes["sha256"], [*shape], dtype]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _sha256(values: Tensor) -> str:
    return hashlib.sha256(values.contiguous().flatten().view(torch.uint8).numpy().data).hexdigest()
