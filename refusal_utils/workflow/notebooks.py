"""The notebooks as files: find them, and read their parameters and what their titles promise."""

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@dataclass(frozen=True)
class Promise:
    """What a notebook's title cell says: the question it answers, what it needs, and how long it takes."""

    question: str
    needs: str
    takes: str


def find_notebooks(numbers: Sequence[str] = ()) -> list[Path]:
    """The notebooks in order, or those whose number is asked for. Raises `ValueError` for a number there is not."""
    every = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    known = {path.name[:2]: path for path in every}
    for number in numbers:
        if number.zfill(2) not in known:
            raise ValueError(
                f"find_notebooks: the number must be one of {', '.join(known)}; got {number!r}. See the list with --list."
            )
    return [known[number.zfill(2)] for number in numbers] or every


def parameter_defaults(path: Path) -> dict[str, Any]:
    """The names assigned in the notebook's cell tagged `parameters`, with their values, which are plain literals."""
    tagged = [cell for cell in read_cells(path) if "parameters" in cell["metadata"].get("tags", ())]
    return {
        target.id: ast.literal_eval(node.value)
        for cell in tagged
        for node in ast.parse("".join(cell["source"])).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def parameter_names(path: Path) -> set[str]:
    """The names assigned in the notebook's cell tagged `parameters`."""
    return set(parameter_defaults(path))


def read_promise(path: Path) -> Promise:
    """The **Question.**, **Needs** and **Takes** of the notebook's title cell. Raises `ValueError` where one is not there."""
    title = "".join(read_cells(path)[0]["source"])
    found = {}
    for name in ("Question", "Needs", "Takes"):
        said = re.search(rf"\*\*{name}\.?\*\*\s*(.+?)(?=\s*\*\*[A-Z]|\n\n|\Z)", title, re.S)
        if not said:
            raise ValueError(
                f"read_promise: the title cell must say **{name}**; got none in {path.name}. Write it: --list shows it."
            )
        found[name.lower()] = " ".join(said[1].split())
    return Promise(**found)


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The notebook's cells."""
    return json.loads(path.read_text(encoding="utf-8"))["cells"]
