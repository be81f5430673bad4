"""What an engine is, and what it must do.

`run(plan, tasks, options)` is a generator. It yields one `Receipt` for every task, in any order, as soon as the block
is on disk or has failed for good. It must

- call `plan.worker(model)` in the process that computes, and `Worker.block(number)` for every task of that model. The
  worker does everything that decides the numbers, so that engines cannot differ in them;
- try a block `ATTEMPTS` times, whether it raises an error or its process dies, and then yield a receipt with the error.
  A block is never left out: a task without a receipt is an error of the engine;
- yield a receipt with the error for every block of a model that cannot be loaded, and go on with the others;
- be harmless if it computes a block twice: a block is written whole, under a hash of its contents;
- end all its processes when the generator is closed or an exception passes through it, Ctrl-C included.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..sweep_plan import Receipt, SweepPlan, Task

ATTEMPTS = 3  # of a block, before it counts as failed


@dataclass(frozen=True)
class Options:
    """Where and how wide an engine works. An engine ignores what does not concern it.

    `address`: of a cluster, None for one on this machine. `n_workers`: how many blocks are computed at once, None for
    as many as fit. `gpus`: GPUs of a worker, None for one if there are any. `patience`: seconds to wait for the first
    worker to start.
    """

    address: str | None = None
    n_workers: int | None = None
    gpus: float | None = None
    patience: float = 300.0


Run = Callable[[SweepPlan, Sequence[Task], Options], Iterator[Receipt]]


@dataclass(frozen=True)
class Engine:
    """One way to compute the blocks of a sweep."""

    name: str
    title: str
    run: Run


def reason(error: BaseException) -> str:
    """The type and the first line of an error."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
