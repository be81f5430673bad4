"""Batches of similar length under a token budget, run one after the other and halved when memory runs out."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ..checks import invalid, require
from .progress import Progress
from .work import report_work

FORWARD_TOKENS = {"cpu": 4096, "cuda": 16384}  # padded tokens of a batch whose activations are read
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")

Result = TypeVar("Result")


@dataclass
class RowCount:
    """How many rows have run through the model: prompts, each once per condition."""

    rows: int = 0


_COUNTS: list[RowCount] = []  # those being filled


@contextmanager
def count_rows() -> Iterator[RowCount]:
    """While open, the rows of all batches are counted; rows that are read from a cache are not."""
    _COUNTS.append(RowCount())
    try:
        yield (own := _COUNTS[-1])
    finally:
        _COUNTS.remove(own)


def token_budget(
    function: str, asked: int | None, device: torch.device, defaults: Mapping[str, int] = FORWARD_TOKENS
) -> int:
    """The padded tokens per batch: `asked`, or else the default for this type of device.

    Raises `ValueError` in the name of `function` if `asked` is below 1.
    """
    if asked is None:
        return defaults.get(device.type, defaults["cpu"])
    require(asked >= 1, function, "batch_tokens must be at least 1", asked, "Leave it out for the default.")
    return asked


def plan_batches(ids: Sequence[Sequence[int]], batch_tokens: int, n_new: int = 0) -> list[list[int]]:
    """Indices into `ids` in batches of similar length, longest first, each of at most `batch_tokens` padded tokens.

    `n_new`: how many tokens will be added to each row. A row that exceeds the budget by itself is a batch of one.

    >>> plan_batches([[1], [1, 2], [3]], batch_tokens=2)
    [[1], [0, 2]]
    """
    order = sorted(range(len(ids)), key=lambda index: (-len(ids[index]), ids[index], index))
    batches: list[list[int]] = []
    for index in order:
        if batches and (len(batches[-1]) + 1) * (len(ids[batches[-1][0]]) + n_new) <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def run_batches(
    function: str,
    batches: Iterable[Sequence[int]],
    step: Callable[[list[int]], Result],
    *,
    left: Callable[[list[int]], list[int]] = list,
    progress: str = "",
    what: str = "rows",
    gradients: bool = False,
) -> Iterator[tuple[list[int], Result]]:
    """Pairs (rows, `step(rows)`), batch by batch; one that does not fit into memory is halved, with a message.

    `left(rows)`: the rows of a batch that still need computing. It is asked before each attempt, so rows that are on
    disk or finished before memory ran out are not computed again. `progress`: the label of a progress bar, empty for
    none; `what`: what the rows are, for the estimate of the time (see `Progress`). Raises `ValueError` in the name of
    `function` if a single row does not fit into memory.
    """
    todo = [list(batch) for batch in batches]
    took = 0.0
    with Progress(progress or function, sum(map(len, todo)), what, bar=bool(progress)) as shown:
        while todo:
            batch = todo.pop(0)
            rows = left(batch)
            shown.skip(len(batch) - len(rows))
            if not rows:
                continue
            began = time.perf_counter()
            try:
                with torch.inference_mode(not gradients):
                    result = step(rows)
            except (RuntimeError, MemoryError) as error:
                todo[:0] = _halves(function, rows, error)
                continue
            took += time.perf_counter() - began
            shown.advance(len(rows))
            for count in _COUNTS:
                count.rows += len(rows)
            yield rows, result
        report_work(function, shown.computed, took)


def in_order(found: Iterable[tuple[list[int], tuple[Tensor, ...]]]) -> tuple[Tensor, ...]:
    """Each of the tensors that a `step` returns, over all batches and in the order of the rows.

    >>> in_order([([2, 0], (torch.tensor([20, 0]),)), ([1], (torch.tensor([10]),))])
    (tensor([ 0, 10, 20]),)
    """
    rows, parts = zip(*found, strict=True)
    order = torch.tensor([row for batch in rows for row in batch]).argsort()
    return tuple(torch.cat(tensors)[order] for tensors in zip(*parts, strict=True))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` means that memory ran out; each type of device words this differently.

    >>> is_out_of_memory(RuntimeError("MPS backend out of memory")), is_out_of_memory(RuntimeError("bad shape"))
    (True, False)
    """
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(part in text for part in _MEMORY_WORDS)


def _halves(function: str, rows: list[int], error: RuntimeError | MemoryError) -> list[list[int]]:
    if not is_out_of_memory(error):
        raise error
    if len(rows) < 2:
        must, todo = "a single prompt must fit into memory", "Shorten the longest one, or load the model in fewer bits."
        raise invalid(function, must, "out of memory at one", todo) from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = len(rows) // 2
    print(f"{function}: out of memory at {len(rows)} prompts, continuing with {middle}", file=sys.stderr)
    return [rows[:middle], rows[middle:]]
