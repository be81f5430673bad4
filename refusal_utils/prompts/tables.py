"""Rows of a text file of prompts: JSON lines, cells with any usual separator, or one prompt per line.

Every row is read right or refused with one sentence that names the file and the line.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..checks import invalid
from .categories import ALL_CATEGORIES

CELLS = (".csv", ".tsv")
ONE_FILE = (".jsonl", *CELLS)  # formats whose prompts can name their category
PROMPT_FILES = (*ONE_FILE, ".txt")
TEXT_COLUMNS = ("text", "prompt")
_SEPARATORS = (",", ";", "\t", "|")
_JSON_PROMPT = re.compile(r'\{.*"(?:text|prompt)"\s*:.*\}', re.IGNORECASE)
_LINE_END = re.compile("\r\n|\n|\r")  # a prompt may hold U+2028 and other separators


def numbered_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of its first line, fields) of every row of a file in one of `PROMPT_FILES`.

    Cells are strings and JSON keeps its types; rows without any text are left out. Raises `ValueError` that names
    file and line for text that is not UTF-8, for NUL characters, and for rows that can be read in two ways.
    """
    text, kind = _decoded(path), path.suffix.lower()
    if kind in CELLS and text.startswith("sep="):  # Excel's way to name the separator, which the header tells too
        text = "\n" + _LINE_END.split(text, maxsplit=1)[-1]
    if kind in CELLS:
        yield from _cells(path, text)
        return
    for number, line in enumerate(_LINE_END.split(text), 1):
        line = line.removeprefix("\ufeff")  # of files that were joined
        if not line.strip():
            continue
        if kind == ".txt" and _JSON_PROMPT.fullmatch(line.strip()):
            raise fault(path, number, "JSON in a file of plain prompts", "Let the file's name end in .jsonl.")
        yield number, {"text": line.strip()} if kind == ".txt" else _json_object(path, number, line)


def fault(path: Path, number: int, reason: str, todo: str = "Correct or remove that line.") -> ValueError:
    """The error to raise about one line of a prompt file. Raises nothing itself."""
    must = "every row must be whole, and its values known ones"
    return invalid("read_prompt_file", must, f"{reason} at {path}, line {number}", todo)


def _decoded(path: Path) -> str:
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("latin-1")
        reason = f"the byte {error.object[error.start]:#x}, which is not UTF-8,"
        raise fault(path, len(_LINE_END.split(before)), reason, "Save the file as UTF-8.") from error
    except OSError as error:
        must = "the file must be readable"
        raise invalid("read_prompt_file", must, f"{error.strerror} at {path}", "Check it.") from error
    if "\0" in text:
        number = len(_LINE_END.split(text[: text.index("\0")]))
        raise fault(path, number, "a NUL character, as in UTF-16,", "Save the file as UTF-8.")
    return text


def _json_object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        fields = json.loads(line, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise fault(path, number, f"invalid JSON ({getattr(error, 'msg', error)})") from error
    if not isinstance(fields, dict):
        raise fault(path, number, "JSON that is not an object")
    return fields


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name.strip().lower() for name, _ in pairs]  # as in the header of a .csv file
    fields = dict(zip(names, (value for _, value in pairs), strict=True))
    if len(fields) < len(pairs):
        raise ValueError(f"the field {next(name for name in names if names.count(name) > 1)!r} twice")
    return fields


def _cells(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    separator = _separator(path, text)
    rows = _split(path, text, separator)
    first, header = next(rows, (1, []))
    names = [name.strip().lower() for name in header]
    while names and not names[-1]:
        names.pop()  # separators at the end of the header, under which nothing may stand
    repeated = [name for name in names if name and names.count(name) > 1]
    if repeated:
        raise fault(path, first, f"the column {repeated[0]!r} twice")
    for number, cells in rows:
        while len(cells) > len(names) and not cells[-1].strip():
            cells.pop()  # separators at the end of a line
        if len(cells) != len(names):
            reason, todo = (
                f"{len(cells)} cells under {len(names)} columns",
                "Put text that holds a separator in quotes.",
            )
            raise fault(path, number, reason, todo)
        _check_swallowed(path, number, names, cells, separator)
        yield number, dict(zip(names, cells, strict=True))


def _separator(path: Path, text: str) -> str:
    """The separator with which the first row has a column of texts; a comma if none has."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    line = next((line for line in _LINE_END.split(text) if line.strip()), "")
    for separator in _SEPARATORS:
        names = next(csv.reader([line], delimiter=separator), [])
        if {name.strip().lower() for name in names} & {*TEXT_COLUMNS}:
            return separator
    return ","


def _split(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, cells) of every row that is not blank."""
    rows = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=separator != "\t"
    )
    number = 1
    with _long_cells(len(text)):
        try:
            for cells in rows:
                if any(cell.strip() for cell in cells):
                    yield number, cells
                number = rows.line_num + 1
        except csv.Error as error:
            reason = f"a quote that is opened and not closed before a separator ({error})"
            raise fault(path, number, reason, 'Close it, or write "" for a quote within quotes.') from error


@contextmanager
def _long_cells(size: int) -> Iterator[None]:
    """Let the csv module read cells of up to `size` characters."""
    before = csv.field_size_limit(max(size, csv.field_size_limit()))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _check_swallowed(path: Path, number: int, names: list[str], cells: list[str], separator: str) -> None:
    """Refuse a cell that holds whole rows: a quote opened in one row and closed by a stray quote in a later one."""
    if "category" not in names:
        return
    at = names.index("category")
    for line in (line for cell in cells for line in cell.splitlines()[1:]):
        inside = line.split(separator)
        if len(inside) == len(names) and inside[at].strip() in ALL_CATEGORIES:
            reason = f"a quote that is opened there and not closed before the row {line[:40]!r}"
            raise fault(path, number, reason, "Close it.")
