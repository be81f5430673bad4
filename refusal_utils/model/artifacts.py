"""Results on disk with the model they belong to: tensors (safetensors) or rows (gzipped JSON lines), each with notes.

Every file appears whole or not at all. Its notes name the model's fingerprint, so that nothing measured on one model is
read as another's.
"""

import gzip
import json
import os
import uuid
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..checks import invalid
from .chat_model import ChatModel

KEY = "refusal_utils"


def model_notes(chat: ChatModel) -> dict[str, Any]:
    """What identifies a model in the notes of a file: name, fingerprint, dtype, thinking, system prompt, place."""
    return {
        "model": chat.name,
        "fingerprint": chat.fingerprint,
        "dtype": str(chat.dtype).removeprefix("torch."),
        "thinking": chat.thinking,
        "system_prompt": chat.system_prompt,
        "decision_source": chat.decision_source,
    }


def require_same_model(function: str, notes: Mapping[str, Any], chat: ChatModel) -> None:
    """Raise `ValueError` in the name of `function` unless `notes` are those of `chat`: weights, tokenizer, template, dtype."""
    if notes["fingerprint"] != chat.fingerprint:
        raise invalid(
            function,
            "file and model must belong together",
            f"a file of {notes['model']} ({notes['fingerprint']}) for {chat.name} ({chat.fingerprint})",
            "Run the notebook that writes it on this model.",
        )


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> Path:
    """Write tensors and notes as one safetensors file, and return its path. Raises `ValueError` where that fails."""
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(kept, {KEY: json.dumps({**notes, "names": list(kept)})})  # safetensors sorts by name
    return _write_whole(Path(path), lambda part: part.write_bytes(content))


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors by name in the order saved, notes). Raises `ValueError` for a file that is missing, damaged or of another kind."""
    try:
        with safe_open(path, "pt") as file:
            notes = json.loads(file.metadata()[KEY])
            return {name: file.get_tensor(name) for name in notes.pop("names")}, notes
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _unreadable("load_tensors", path, error) from error


def save_rows(path: str | Path, rows: pd.DataFrame, notes: Mapping[str, Any]) -> Path:
    """Write a frame and notes as gzipped JSON lines, and return the path. Raises `ValueError` for no rows, or where that fails."""
    if not len(rows):
        raise invalid("save_rows", "there must be rows", "none", "Run the sweep first.")

    def write(part: Path) -> None:
        with gzip.open(part, "wt", encoding="utf-8") as file:
            file.write(json.dumps({KEY: {**notes, "n_rows": len(rows)}}) + "\n")
            rows.to_json(file, orient="records", lines=True, double_precision=15)

    return _write_whole(Path(path), write)


def load_rows(path: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """(rows, notes); JSON lists become tuples. Raises `ValueError` for a file that is missing, cut off or of another kind."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            notes = json.loads(file.readline())[KEY]
            rows = pd.DataFrame([{key: _tuple(value) for key, value in json.loads(line).items()} for line in file])
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable("load_rows", path, error) from error
    if len(rows) != notes["n_rows"]:
        raise _unreadable("load_rows", path, f"{len(rows)} of {notes['n_rows']} rows")
    return rows, notes


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _write_whole(path: Path, write: Callable[[Path], Any]) -> Path:
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        os.replace(part, path)
    except OSError as error:
        raise invalid(
            "save",
            "the folder must be writable",
            f"{error.strerror} at {path}",
            "Free space, or choose another folder.",
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return path


def _unreadable(function: str, path: str | Path, why: object) -> ValueError:
    kind = why if isinstance(why, str) else type(why).__name__
    return invalid(function, "the file must be whole and written by this suite", f"{path} ({kind})", "Write it again.")
