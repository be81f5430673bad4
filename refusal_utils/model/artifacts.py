"""Single results on disk: tensors (safetensors) or rows (gzipped JSON lines), with notes on model and seed."""

import gzip
import json
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from jaxtyping import Shaped
from torch import Tensor

from ..checks import invalid, require
from .chat_model import ChatModel
from .store import DamagedFileError, disk_errors, one_at_a_time, pack, unpack, write_whole

KEY = "refusal_utils"
SEEDS = "seeds.json"  # in a folder of figures
Loaded = TypeVar("Loaded")


def model_notes(chat: ChatModel) -> dict[str, Any]:
    """What identifies a model in the notes of a file: name, fingerprint, dtype, quantization, and the prompt's."""
    return {
        "model": chat.name,
        "fingerprint": chat.fingerprint,
        "dtype": str(chat.dtype).removeprefix("torch."),
        "dequantized_from": chat.dequantized_from,
        "thinking": chat.thinking,
        "system_prompt": chat.system_prompt,
        "decision_source": chat.decision_source,
    }


def require_same_model(function: str, notes: Mapping[str, Any], chat: ChatModel) -> None:
    """Raise `ValueError` in the name of `function` unless `notes` match `chat`: weights, tokenizer, template, dtype."""
    current = chat.fingerprint
    got = f"a file of {notes['model']} ({notes['fingerprint']}) for {chat.name} ({current})"
    todo = "Run the notebook that writes it on this model."
    require(notes["fingerprint"] == current, function, "file and model must belong together", got, todo)


def save_tensors(path: str | Path, tensors: Mapping[str, Shaped[Tensor, "..."]], notes: Mapping[str, Any]) -> Path:
    """The path, after writing tensors and notes as one safetensors file. Raises `ValueError` if that fails."""
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # The names are noted because safetensors sorts them.
    return _save(path, pack(kept, {KEY: json.dumps({**notes, "names": list(kept)})}))


def load_tensors(path: str | Path) -> tuple[dict[str, Shaped[Tensor, "..."]], dict[str, Any]]:
    """(tensors by name in the order saved, notes).

    Raises `ValueError` for a file that is missing, damaged or was not written by `save_tensors`.
    """
    try:
        tensors, metadata = unpack(Path(path).read_bytes())
        notes = json.loads(metadata[KEY])
        return {name: tensors[name] for name in notes.pop("names")}, notes
    except (DamagedFileError, OSError, KeyError, TypeError, ValueError) as error:
        raise _unreadable("load_tensors", path, type(error).__name__) from error


def save_rows(path: str | Path, rows: pd.DataFrame, notes: Mapping[str, Any]) -> Path:
    """The path, after writing rows and notes as gzipped JSON lines. Raises `ValueError` for no rows or if it fails."""
    require(len(rows) > 0, "save_rows", "there must be rows", "none", "Run the sweep first.")
    head = json.dumps({KEY: {**notes, "n_rows": len(rows)}})
    lines = rows.to_json(orient="records", lines=True, double_precision=15)
    return _save(path, gzip.compress(f"{head}\n{lines}".encode(), mtime=0))


def load_rows(path: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """(rows, notes), with JSON lists as tuples.

    Raises `ValueError` for a file that is missing, cut off or was not written by `save_rows`.
    """
    try:
        head, *lines = gzip.decompress(Path(path).read_bytes()).decode().splitlines()
        notes = json.loads(head)[KEY]
        rows = pd.DataFrame([{key: _tuple(value) for key, value in json.loads(line).items()} for line in lines])
        n_rows = int(notes["n_rows"])
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable("load_rows", path, type(error).__name__) from error
    if len(rows) != n_rows:
        raise _unreadable("load_rows", path, f"{len(rows)} of {n_rows} rows")
    return rows, notes


def load_kept(load: Callable[[Path], Loaded], path: Path | None) -> Loaded | None:
    """What `load` reads from a file of the cache; None without one, or with a message if it is damaged."""
    with disk_errors("load_kept", "the cache must be readable", path or ""):
        if path is None or not path.is_file():
            return None
    try:
        return load(path)
    except (ValueError, KeyError) as error:  # an older version may have kept other notes
        print(f"{error} It is computed again.", file=sys.stderr)
        return None


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _save(path: str | Path, content: bytes) -> Path:
    with disk_errors("save", "the folder must be writable", path):
        return write_whole(Path(path), content)


def _unreadable(function: str, path: str | Path, why: str) -> ValueError:
    return invalid(function, "the file must be whole and written by this suite", f"{path} ({why})", "Write it again.")


def note_seed(folder: Path, name: str, seed: int) -> Path:
    """The path of the result `name` in a model's folder, after noting its seed in the folder's `seeds.json`.

    An ending of `name` is not noted. Raises `ValueError` if the note cannot be written.
    """
    with disk_errors("note_seed", "the folder of figures must be writable", folder), one_at_a_time(folder, SEEDS):
        before = read_seeds(folder)
        if before.get(Path(name).stem) != seed:
            text = json.dumps(dict(sorted({**before, Path(name).stem: int(seed)}.items())), indent=1)
            write_whole(folder / SEEDS, f"{text}\n".encode())
    return folder / name


def read_seeds(folder: Path) -> dict[str, int]:
    """The seed of each result in a model's folder, by the name of its files; empty without a whole file of seeds."""
    try:
        found = json.loads((folder / SEEDS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
