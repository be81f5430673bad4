"""The notebooks as files: where they are, their parameters, and what their title cells state."""

import ast
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checks import did_you_mean, invalid, require

_INSTALLED = Path(__file__).parent / "_notebooks"
NOTEBOOKS = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[1] / "notebooks"


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


class NotebookDied(NotebookFailure):
    """A notebook whose process ended before it did; `cell` is 0 if it did not start, and `source` says where it was."""

    def __str__(self) -> str:
        """One sentence on what happened, and one on what to do."""
        if not self.cell:
            return f"{self.notebook} did not start: {self.error}. Check that ipykernel works in {sys.executable}."
        return (
            f"{self.notebook}: its process was killed in {self.source}, most likely because memory ran out "
            f"({self.error}). Set --size quick, DTYPE=bfloat16 or a smaller MODEL, or close other programs; finished "
            "notebooks, cached activations and responses are kept, and the same command continues from there."
        )


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

    @property
    def earlier(self) -> tuple[str, ...]:
        """The numbers of the notebooks that `needs` names, or whose files it names."""
        return tuple(sorted({*re.findall(r"notebooks? (\d\d)", self.needs), *(name[:2] for name in self.inputs)}))


def find_notebooks(wanted: Sequence[str] = ()) -> list[Path]:
    """The notebooks with these numbers or names, each once, or all of them in order.

    A text may hold several, separated by commas: `3`, `"03,06"`, `"03_direction_geometry"`, with or without `.ipynb`.
    Raises `ValueError` for an unknown or empty one, and if there are no notebooks.
    """
    known = {path.name[:2]: path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}
    require(
        bool(known), "find_notebooks", "there must be notebooks", f"none in {NOTEBOOKS}", "Install the package again."
    )
    named = known | {path.stem: path for path in known.values()} | {path.stem[3:]: path for path in known.values()}
    asked = [name.strip() for text in wanted for name in str(text).split(",")]
    plain = [Path(name).name.removesuffix(".ipynb").zfill(2) if name else "" for name in asked]
    for name, text in zip(plain, asked, strict=True):
        if name not in named:
            must = f"the number must be one of {', '.join(known)}, or a notebook's name"
            todo = did_you_mean(name, named) or "See the list with run --list."
            raise invalid("find_notebooks", must, repr(text), todo)
    return list(dict.fromkeys(named[name] for name in plain)) or list(known.values())


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The notebook's cells."""
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def parameter_defaults(path: Path) -> dict[str, Any]:
    """The notebook's parameters with their default values, which are plain literals."""
    cells = [cell for cell in read_cells(path) if "parameters" in cell["metadata"].get("tags", ())]
    lines = [line for cell in cells for line in ast.parse("".join(cell["source"])).body]
    assigned = [line for line in lines if isinstance(line, ast.Assign)]
    return {ast.unparse(line.targets[0]): ast.literal_eval(line.value) for line in assigned}


def read_title(path: Path) -> Title:
    """What the title cell states. Raises `ValueError` if **Question.**, **Needs** or **Takes** is missing."""
    text = "".join(read_cells(path)[0]["source"])
    found = {}
    for name in ("Question", "Needs", "Takes"):
        match = re.search(rf"\*\*{name}\.?\*\*\s*(.+?)(?=\s*\*\*[A-Z]|\n\n|\Z)", text, re.S)
        if not match:
            raise invalid("read_title", f"the title cell must state **{name}**", f"none in {path.name}", "Add it.")
        found[name.lower()] = " ".join(match[1].split())
    return Title(**found)
