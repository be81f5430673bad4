"""Executes one notebook in a process of this Python, with a line of progress."""

from pathlib import Path
from typing import Any

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill import PapermillExecutionError, execute_notebook
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines

from ..notebooks import NotebookDied, NotebookFailure
from .progress import ProgressLine

ENGINE = "refusal_utils"


def execute(path: Path, out: Path, parameters: dict[str, Any]) -> None:
    """Execute the notebook and write the executed copy to the file `out`.

    Raises `NotebookFailure` if a cell fails, and `NotebookDied` if the notebook's process ends or does not start.
    """
    with ProgressLine(path.stem) as line:
        try:
            _execute(path, out, parameters, line)
        except PapermillExecutionError as error:
            what = f"{error.ename}: {error.evalue}"
            raise NotebookFailure(path.name, error.cell_index, error.source, what) from error
        except DeadKernelError as error:
            raise NotebookDied(path.name, 1, line.cell, str(error)) from error
        except RuntimeError as error:
            if line.cell.startswith("cell"):
                raise
            raise NotebookDied(path.name, 0, line.cell, str(error)) from error


def _execute(path: Path, out: Path, parameters: dict[str, Any], line: ProgressLine) -> None:
    execute_notebook(
        str(path),
        str(out),
        parameters=parameters,
        cwd=str(path.parent),
        kernel_name="python3",
        engine_name=ENGINE,
        progress_bar=False,
        extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        kernel_manager_class=_OwnKernel,
        line=line,
    )


class _OwnKernel(AsyncKernelManager):
    """Starts the kernel of the running interpreter, whatever `python3` means on the user's `JUPYTER_PATH`."""

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(**get_kernel_dict())


class _Engine(NBClientEngine):
    """Papermill's engine, which tells `line` about each code cell that begins."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, *, line: ProgressLine, **options: Any
    ) -> Any:
        number = {index: n for n, index in enumerate(_code_cells(nb_man.nb), 1)}
        start = nb_man.cell_start

        def begin(cell: Any, cell_index: int | None = None, **more: Any) -> Any:
            if cell_index in number:
                line.cell = f"cell {number[cell_index]} of {len(number)}"
            return start(cell, cell_index, **more)

        nb_man.cell_start = begin
        return super().execute_managed_notebook(nb_man, kernel_name, **options)


def _code_cells(notebook: Any) -> list[int]:
    return [index for index, cell in enumerate(notebook.cells) if cell.cell_type == "code"]


papermill_engines.register(ENGINE, _Engine)
