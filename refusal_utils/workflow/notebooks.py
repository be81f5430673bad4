"""The notebooks as files: where they are, their parameters, and what their title cells state."""

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checks import invalid

_INSTALLED = Path(__file__).parents[1] / "_notebooks"
NOTEBOOKS = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "notebooks"


@dataclass(eq=False)
class NotebookFailure(Exception):
    """A notebook that failed: its name, the number of the code cell, the cell's source, and the error."""

    notebook: str
    cell: int
    source: str
    error: str

    def __str__(self) -> str:
        """The cell's source and its error, as the runner prints them."""
        shown = "\n".join(f"    {line}" for line in self.source.splitlines())
        return f"{self.notebook} failed in cell {self.cell}:\n{shown}\n{self.error}"


@dataclass(frozen=True)
class Title:
    """What a notebook's title cell states: the question it answers, what it needs, and how long it takes."""

    question: str
    needs: str
    takes: str

    @property
    def inputs(self) -> list[str]:
        """The files of earlier notebooks without which this one stops: those named in `needs`."""
        return re.findall(r"`(\d\d_\w+(?:<model>)?\.(?:csv|safetensors|jsonl\.gz))`", self.needs)


def find_notebooks(numbers: Sequence[str] = ()) -> list[Path]:
    """The notebooks with these numbers, or all of them in order. Raises `ValueError` for an unknown number."""
    known = {path.name[:2]: path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}
    for number in numbers:
        if number.zfill(2) not in known:
            must = f"the number must be one of {', '.join(known)}"
            raise invalid("find_notebooks", must, repr(number), "See the list with run --list.")
    return [known[number.zfill(2)] for number in numbers] or list(known.values())


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The notebook's cells."""
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def parameter_defaults(path: Path) -> dict[str, Any]:
    """The notebook's parameters with their default values, which are plain literals."""
    from papermill import inspect_notebook

    return {name: ast.literal_eval(found["default"]) for name, found in inspect_notebook(str(path)).items()}


def read_title(path: Path) -> Title:
    """What the notebook's title cell states. Raises `ValueError` if **Question.**, **Needs** or **Takes** is missing."""
    text = "".join(read_cells(path)[0]["source"])
    found = {}
    for name in ("Question", "Needs", "Takes"):
        match = re.search(rf"\*\*{name}\.?\*\*\s*(.+?)(?=\s*\*\*[A-Z]|\n\n|\Z)", text, re.S)
        if not match:
            raise invalid("read_title", f"the title cell must state **{name}**", f"none in {path.name}", "Add it.")
        found[name.lower()] = " ".join(match[1].split())
    return Title(**found)
