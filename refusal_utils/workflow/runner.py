"""Execute the notebooks in order, leaving out those that are done: `python -m refusal_utils run`."""

import ast
import os
import textwrap
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..model.chat_model import BUNDLED
from ..plotting.look import FIGURES, model_folder
from ..prompts.files import ONE_FILE
from .notebooks import find_notebooks, parameter_names, read_promise
from .records import RENDERER, digest, is_done, missing_inputs, write_record

UNATTENDED = "REFUSAL_UTILS_UNATTENDED"  # tells a notebook's Colab cell that there is nobody to ask
_OPTION_OF = {"MODEL": "--model", "FIGURES_DIR": "--out"}


@dataclass(eq=False)
class NotebookFailure(Exception):
    """A notebook stopped: which, at which code cell, and why."""

    notebook: str
    cell: int
    source: str
    error: str

    def __str__(self) -> str:
        """The cell's source and its error, as the runner prints them."""
        shown = "\n".join(f"    {line}" for line in self.source.splitlines())
        return f"{self.notebook} failed in cell {self.cell}:\n{shown}\n{self.error}"


def run_notebook(path: Path, out: Path, parameters: dict[str, Any]) -> float:
    """Execute one notebook with `parameters`, write it under `out`, and return the minutes it took.

    Raises `ValueError` for a parameter that the notebook has not, `NotebookFailure` for a cell that fails.
    """
    import papermill

    unknown = set(parameters) - parameter_names(path)
    if unknown:
        raise ValueError(
            f"run_notebook: parameters must be among {', '.join(sorted(parameter_names(path)))}; got {', '.join(sorted(unknown))}. "
            f"See the parameters cell of {path.name}."
        )
    out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PLOTLY_RENDERER", RENDERER)
    os.environ[UNATTENDED] = "1"
    began = time.time()
    try:
        papermill.execute_notebook(
            str(path),
            str(out / path.name),
            parameters=parameters,
            cwd=str(path.parent),
            kernel_name="python3",
            progress_bar=False,
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        )
    except papermill.PapermillExecutionError as error:
        failed = f"{error.ename}: {error.evalue}"
        raise NotebookFailure(path.name, error.cell_index, error.source, failed) from error
    return (time.time() - began) / 60


def run_notebooks(
    model: str = BUNDLED,
    numbers: Sequence[str] = (),
    parameters: dict[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    fresh: bool = False,
) -> None:
    """Execute notebooks in order on `model`, one printed line each with its minutes; stops at the first failure.

    `parameters` go to the notebooks that have them. `out` holds one folder per model, or is this model's. A notebook
    that is done (`run_records.is_done`) is left out, unless `fresh`. Raises `ValueError` for a parameter that no chosen
    notebook has, for a notebook that needs what one that was neither chosen nor run before writes, and as `run_notebook`.
    """
    chosen, root = find_notebooks(numbers), figures_root(out, model)
    _require_known(chosen, parameters or {})
    given = {"MODEL": from_anywhere(model), **(parameters or {})} | ({} if out is None else {"FIGURES_DIR": str(root)})
    executed = model_folder(model, root) / "notebooks"
    _require_inputs(chosen, given)
    for path in chosen:
        own = _own(path, given)
        print(f"{path.stem:<28}", end=" ", flush=True)
        inputs = digest(path, own)
        if not fresh and is_done(path, executed / path.name, inputs):
            print("done before, skipped (--fresh runs it again)", flush=True)
            continue
        minutes = run_notebook(path, executed, own)
        write_record(path, executed / path.name, own, inputs)
        print(f"{minutes:5.1f} min", flush=True)
    print(f"Figures and executed notebooks are in {os.path.relpath(executed.parent)}")


def _own(path: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Those of the parameters that the notebook has."""
    return {name: value for name, value in given.items() if name in parameter_names(path)}


def figures_root(out: str | Path | None, model: str) -> Path:
    """The folder that holds one folder per model, absolute, where `out` may be it or already the one of `model`."""
    root = Path(out or FIGURES).expanduser().resolve()
    return root.parent if out and root.name == model_folder(model).name else root


def from_anywhere(name: str) -> str:
    """`name`, made absolute where it is a path or a model's folder that is there: notebooks run in their own folder.

    >>> from_anywhere("google/gemma-2-9b-it")
    'google/gemma-2-9b-it'
    """
    path = Path(name).expanduser()
    here = name.startswith((".", "~", os.sep)) or (path / "config.json").is_file()
    return path.resolve().as_posix() if here else name


def prompts_parameter(source: str) -> str:
    """The value of PROMPTS for "builtin", "paper", a folder or a file. Raises `ValueError` for one that is not there."""
    if source in ("builtin", "paper"):
        return source
    path = Path(source).expanduser().resolve()
    if not path.is_dir() and not (path.is_file() and path.suffix in ONE_FILE):
        raise ValueError(
            "prompts_parameter: prompts must be 'builtin', 'paper', a folder with a file for every category, or a "
            f"{' or '.join(ONE_FILE)} file; "
            f"got {source!r}. Check the spelling."
        )
    return path.as_posix()


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """The parameters in texts `NAME=VALUE`, a value read as a Python literal where it is one, else as text.

    >>> parse_settings(["N_PROMPTS=32", "LAYER=None", "EXAMPLE=advice"])
    {'N_PROMPTS': 32, 'LAYER': None, 'EXAMPLE': 'advice'}

    Raises `ValueError` for a text of another form, and for a name that has an option of its own.
    """
    found: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(
                f"parse_settings: a setting must read NAME=VALUE; got {setting!r}. Write for example SEED=1."
            )
        if name in _OPTION_OF:
            raise ValueError(
                f"parse_settings: {name} must be set by its own option; got {setting!r}. Use {_OPTION_OF[name]}."
            )
        try:
            found[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            found[name] = value
    return found


def list_notebooks(numbers: Sequence[str] = ()) -> str:
    """A paragraph per notebook: its number and name, question, inputs, and minutes."""
    parts = []
    for path in find_notebooks(numbers):
        promise = read_promise(path)
        lines = [
            textwrap.fill(f"    {word:<10}{text}", 118, subsequent_indent=" " * 14, break_on_hyphens=False)
            for word, text in (("question", promise.question), ("needs", promise.needs), ("takes", promise.takes))
        ]
        parts.append("\n".join([f"{path.name[:2]}  {path.stem[3:].replace('_', ' ')}", *lines]))
    return "\n\n".join(parts)


def _require_known(chosen: Sequence[Path], parameters: dict[str, Any]) -> None:
    known = {name for path in chosen for name in parameter_names(path)} - set(_OPTION_OF)
    unknown = sorted(set(parameters) - known)
    if unknown:
        raise ValueError(
            f"run_notebooks: a parameter must be one of {', '.join(sorted(known))}; got {', '.join(unknown)}. "
            "See the parameters cells of the chosen notebooks."
        )


def _require_inputs(chosen: Sequence[Path], given: dict[str, Any]) -> None:
    """Raises `ValueError` for the first notebook that would not find what it reads, naming all that are to run."""
    for place, path in enumerate(chosen):
        first = {each.name[:2] for each in chosen[:place]}
        missing = [file for file in missing_inputs(path, _own(path, given)) if file.name[:2] not in first]
        if missing:
            numbers = {number for each in chosen for number in (each.name[:2], *_producers(each, given))}
            raise ValueError(
                f"run_notebooks: notebook {path.name[:2]} must find what earlier ones write; got no "
                f"{', '.join(map(os.path.relpath, missing))}. Run --notebooks {' '.join(sorted(numbers))}."
            )


def _producers(path: Path, given: dict[str, Any]) -> set[str]:
    """The numbers of the notebooks that are to run before this one, for it to find what it reads."""
    numbers = {file.name[:2] for file in missing_inputs(path, _own(path, given))}
    earlier = find_notebooks(sorted(numbers)) if numbers else []
    return numbers.union(*(_producers(each, given) for each in earlier))
