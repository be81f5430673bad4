"""Executes one notebook in a process of this Python, with a line of progress."""

import os
import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import Popen
from typing import Any

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner
from jupyter_core.utils import ensure_event_loop
from nbclient.exceptions import DeadKernelError
from papermill import PapermillExecutionError, execute_notebook
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines

from ..model.work import Work
from ..notebooks import NotebookDied, NotebookFailure
from .progress import ProgressLine

ENGINE = "refusal_utils"


class Kernels:
    """The processes of the notebooks that run now; `variables` are added to their environment.

    `work` has what the loops of every finished notebook did, by its name.
    """

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self.variables, self.processes, self.is_ended = dict(variables or {}), set[Popen](), False
        self.work: dict[str, Work] = {}

    def add(self, process: Popen) -> None:
        """Keep a process that has started, or end it if all must end."""
        self.processes.add(process)
        if self.is_ended:
            _kill(process)

    def end(self) -> None:
        """Kill all of them, and those that start later."""
        self.is_ended = True
        for process in [*self.processes]:
            _kill(process)


def execute(path: Path, out: Path, parameters: dict[str, Any], kernels: Kernels) -> None:
    """Execute the notebook, write the executed copy to the file `out`, and keep what its loops did in `kernels`.

    Raises `NotebookFailure` if a cell fails, and `NotebookDied` if the notebook's process ends or does not start.
    """
    with ProgressLine(path.stem) as line:
        try:
            _execute(path, out, parameters, line, kernels)
        except PapermillExecutionError as error:
            what = f"{error.ename}: {error.evalue}"
            raise NotebookFailure(path.name, error.cell_index, error.source, what) from error
        except DeadKernelError as error:
            raise NotebookDied(path.name, 1, line.cell, str(error)) from error
        except RuntimeError as error:
            if line.cell.startswith("cell"):
                raise
            raise NotebookDied(path.name, 0, line.cell, str(error)) from error
    kernels.work[path.stem] = line.work


def _execute(path: Path, out: Path, parameters: dict[str, Any], line: ProgressLine, kernels: Kernels) -> None:
    own = {"variables": line.variables | kernels.variables, "kernels": kernels}
    execute_notebook(
        str(path),
        str(out),
        parameters=parameters,
        cwd=str(path.parent),
        kernel_name="python3",
        engine_name=ENGINE,
        progress_bar=False,
        extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        kernel_manager_class=type("_ThisKernel", (_OwnKernel,), own),  # papermill takes a class
        line=line,
    )


def close_loop() -> None:
    """Close the event loop that nbclient made for this thread; without effect in the main thread, which keeps it."""
    if threading.current_thread() is not threading.main_thread():
        ensure_event_loop().close()


def _kill(process: Popen) -> None:
    """Kill a kernel that still runs, with what it has started; on Windows the kernel alone."""
    with suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()


class _OwnKernel(AsyncKernelManager):
    """Starts the kernel of the running interpreter, whatever `python3` means on the user's `JUPYTER_PATH`."""

    variables: dict[str, str]
    kernels: Kernels

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(**get_kernel_dict())

    async def _async_pre_start_kernel(self, **options: Any) -> tuple[list[str], dict[str, Any]]:
        return await super()._async_pre_start_kernel(env={**os.environ, **self.variables}, **options)

    async def _async_post_start_kernel(self, **options: Any) -> None:
        await super()._async_post_start_kernel(**options)
        if isinstance(self.provisioner, LocalProvisioner) and self.provisioner.process:
            self.kernels.add(self.provisioner.process)


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
