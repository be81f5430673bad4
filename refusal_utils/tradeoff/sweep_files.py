"""Sweeps on disk, with the model, layer and position that they belong to: none is read as another model's by mistake."""

import gzip
import json
import os
import uuid
import zlib
from pathlib import Path
from typing import Any

import pandas as pd

from ..model.chat_model import ChatModel


def save_sweep(
    rows: pd.DataFrame, path: str | Path, chat: ChatModel, layer: int, pos: int, draw: str | None = None
) -> Path:
    """Write the rows of `tradeoffs.sweep` as gzipped lines of JSON, after a first one that says whose they are.

    That line names model, fingerprint, layer, position, the number of rows, and where it is given the digest of the draw
    (`setting.draw_digest`) that the directions were estimated from. The file appears whole or not at all.
    Raises `ValueError` where there are no rows, or the file cannot be written.
    """
    if not len(rows):
        raise ValueError("save_sweep: a sweep must have rows; got none. Run it first.")
    path = Path(path)
    notes = {"model": chat.name, "fingerprint": chat.fingerprint, "layer": layer, "pos": pos, "n_rows": len(rows)}
    notes |= {"draw": draw} if draw else {}
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(temporary, "wt", encoding="utf-8") as file:
            file.write(json.dumps({"sweep": notes}) + "\n")
            rows.to_json(file, orient="records", lines=True, double_precision=15)
        os.replace(temporary, path)
    except OSError as error:
        raise ValueError(
            f"save_sweep: the folder must be writable; got {error.strerror} at {path}. Free space or choose another."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def load_sweep(path: str | Path, chat: ChatModel | None = None) -> tuple[pd.DataFrame, int, int]:
    """(rows, layer, pos) from a file of `save_sweep`, if this very model gave the responses; lists of styles are tuples.

    Without `chat` (a large model need not be loaded to read what it said) any model's; whose they are is in
    `rows.attrs`: model, fingerprint, layer, pos, and draw where it was noted. Raises `ValueError` where there is no such file, it is cut off or something else, or weights, tokenizer, template,
    system prompt or dtype differ from those of `chat`.
    """
    if not Path(path).is_file():
        raise ValueError(f"load_sweep: the sweep must be on disk; got no {path}. Run notebook 06 first.")
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            notes = json.loads(file.readline())["sweep"]
            found = [json.loads(line) for line in file]
        rows = pd.DataFrame([{name: _tuple(value) for name, value in row.items()} for row in found])
        place = (int(notes["layer"]), int(notes["pos"]))
        whole = len(rows) == notes["n_rows"]
        model, fingerprint = notes["model"], notes["fingerprint"]
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _broken(path, type(error).__name__) from error
    if not whole:
        raise _broken(path, f"{len(rows)} of {notes['n_rows']} rows")
    if chat is not None and fingerprint != chat.fingerprint:
        raise ValueError(
            f"load_sweep: responses and model must belong together; got those of {model} ({fingerprint}) for "
            f"{chat.name} ({chat.fingerprint}). Run notebook 06 on this model."
        )
    rows.attrs = notes
    return rows, *place


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _broken(path: str | Path, what: str) -> ValueError:
    return ValueError(
        f"load_sweep: the file must be a whole one of save_sweep; got {path} ({what}). Delete it and run notebook 06 again."
    )
