"""The engine `local`: one model after the other, in this process."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from ..sweep_plan import Receipt, SweepPlan, Task
from .engine import ATTEMPTS, Engine, Options, reason

if TYPE_CHECKING:
    from ..sweep_worker import Worker


def run(plan: SweepPlan, tasks: Sequence[Task], options: Options) -> Iterator[Receipt]:
    """A receipt for every task, model by model."""
    import torch  # not above: workers of other engines import this module

    n_threads = torch.get_num_threads()
    try:
        for model, own in groupby(tasks, lambda task: task.model):
            yield from _of_model(plan, model, [*own])
    finally:
        torch.set_num_threads(n_threads)


def _of_model(plan: SweepPlan, model: str, tasks: Sequence[Task]) -> Iterator[Receipt]:
    try:
        worker = plan.worker(model)
    except Exception as error:
        yield from (Receipt(task, error=reason(error)) for task in tasks)
        return
    try:
        yield from (_attempted(worker, task) for task in tasks)
    finally:
        worker.close()


def _attempted(worker: "Worker", task: Task) -> Receipt:
    why = ""
    for _ in range(ATTEMPTS):
        try:
            return worker.block(task.number)
        except Exception as error:
            why = reason(error)
    return Receipt(task, error=why)


ENGINE = Engine("local", "in this process, one model after the other", run)
