"""Captured activations on disk: one file per batch, found by the text of each prompt and checked before use.

Only a file that is known to be damaged is removed. A file that cannot be opened now is kept, and an error names it.
"""

import json
import sys
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from jaxtyping import Float
from torch import Tensor

from .chat_model import ChatModel
from .store import DamagedFileError, content_key, disk_errors, list_files, pack, read_notes, unpack, write_whole

_FUNCTION = "capture_activations"
_READABLE = "the cache must be readable"

Content = TypeVar("Content")
Prompt = str | list[int]  # a text, or token ids


class ActivationStore:
    """The batches under `root` that `chat` produced at the hooks `names` and at `positions`, or at all tokens.

    The text of a prompt is a sufficient key: the model's fingerprint covers tokenizer, template and system prompt.
    Without `positions` a prompt is given by its token ids, and its last positions are its tokens. Raises `ValueError`
    in the name of `function` for a folder or file that exists but cannot be read.
    """

    def __init__(
        self, root: Path, chat: ChatModel, names: Sequence[str], positions: Sequence[int], function: str = _FUNCTION
    ) -> None:
        self.function = function
        self.context = json.dumps([chat.fingerprint, list(names), list(positions), str(chat.dtype)])
        self.folder = root / content_key(self.context)
        self.where: dict[str, tuple[Path, int]] = {}
        with disk_errors(function, _READABLE, self.folder):
            paths = list_files(self.folder, ".safetensors")
        for path in paths:
            keys = self._read(path, self._keys) or []
            self.where.update({key: (path, index) for index, key in enumerate(keys)})

    def read(self, prompts: Sequence[Prompt]) -> Iterator[tuple[list[int], Float[Tensor, "batch layer pos d_model"]]]:
        """(indices into `prompts`, activations) of the prompts that are stored, file by file.

        Raises `ValueError` for a file that exists but cannot be read.
        """
        wanted: dict[Path, list[tuple[int, int]]] = defaultdict(list)
        for row, prompt in enumerate(prompts):
            if (key := content_key(prompt)) in self.where:
                path, index = self.where[key]
                wanted[path].append((row, index))
        for path, places in wanted.items():
            values = self._read(path, lambda path: unpack(path.read_bytes())[0]["activations"])
            if values is not None:
                rows, indices = zip(*places, strict=True)
                yield list(rows), values[list(indices)]

    def write(self, prompts: Sequence[Prompt], values: Float[Tensor, "batch layer pos d_model"]) -> None:
        """Write one batch so that readers, and writers of the same batch, see all of it or nothing.

        Raises `ValueError` if the folder cannot be written to.
        """
        keys = [content_key(prompt) for prompt in prompts]
        content = pack({"activations": values.contiguous()}, {"prompts": ",".join(keys), "context": self.context})
        with disk_errors(self.function, "the cache must be writable", self.folder):
            write_whole(self.folder / f"{content_key(keys)}.safetensors", content)

    def _keys(self, path: Path) -> list[str]:
        """The keys of the prompts in a file; none if it belongs to another store."""
        notes = read_notes(path)
        keys = notes["prompts"].split(",")
        if notes["context"] == self.context and path.stem == content_key(keys):
            return keys
        unpack(path.read_bytes())  # raises if it looks foreign only because it is damaged
        return []

    def _read(self, path: Path, read: Callable[[Path], Content]) -> Content | None:
        """`read(path)`, or None for a file that another process has removed or that is damaged, which is removed."""
        with disk_errors(self.function, _READABLE, path):
            try:
                return read(path)
            except FileNotFoundError:
                return None
            except (DamagedFileError, KeyError):
                print(f"{self.function}: {path} fails its checksum, its prompts are computed again", file=sys.stderr)
                with suppress(OSError):
                    path.unlink()
                return None


class FoundPrompts(ABC):
    """The activations of `prompts` found so far, first those in `store`, and the rows whose activations are known."""

    def __init__(self, prompts: Sequence[Prompt], store: ActivationStore | None) -> None:
        self.prompts, self.store, self.known = prompts, store, set[int]()
        for rows, values in store.read(prompts) if store else ():
            self._know(rows, values)

    @abstractmethod
    def _keep(self, rows: Sequence[int], values: Float[Tensor, "batch layer pos d_model"]) -> None:
        """Put the activations of some rows where they belong; `known` is empty the first time."""

    def missing(self, rows: Sequence[int]) -> list[int]:
        """Those of `rows` whose activations are not known yet."""
        return [row for row in rows if row not in self.known]

    def add(self, rows: Sequence[int], values: Float[Tensor, "batch layer pos d_model"]) -> None:
        """Keep one batch, in the store too. Raises `ValueError` as `ActivationStore.write` does."""
        if self.store:
            self.store.write([self.prompts[row] for row in rows], values)
        self._know(rows, values)

    def _know(self, rows: Sequence[int], values: Float[Tensor, "batch layer pos d_model"]) -> None:
        self._keep(rows, values)
        self.known.update(rows)
