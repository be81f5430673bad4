"""Batches of similar length under a token budget, and what to do when one does not fit into memory."""

import sys
from collections.abc import Mapping, Sequence

import torch

_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")
FORWARD_TOKENS = {"cpu": 4096, "cuda": 16384}  # padded tokens of a batch whose activations are read


def token_budget(
    function: str, asked: int | None, device: torch.device, defaults: Mapping[str, int] = FORWARD_TOKENS
) -> int:
    """Padded tokens of a batch: as asked for, else the default of the device, else that of the CPU.

    Raises `ValueError` in the name of `function` for less than one token.

    >>> token_budget("capture_activations", None, torch.device("mps"))
    4096
    """
    if asked is not None and asked < 1:
        raise ValueError(f"{function}: batch_tokens must be at least 1; got {asked}. Leave it out for the default.")
    return defaults.get(device.type, defaults["cpu"]) if asked is None else asked


def plan_batches(ids: Sequence[Sequence[int]], batch_tokens: int, n_new: int = 0) -> list[list[int]]:
    """Indices of `ids` in batches of similar length, longest first, of at most `batch_tokens` padded tokens each.

    `n_new` tokens are to be added to every row. The same plan for the same prompts; a row too long for the budget is a
    batch of its own.

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


def halve(function: str, rows: list[int], error: RuntimeError | MemoryError) -> list[list[int]]:
    """The two halves of a batch that did not fit into memory, which is said; any other error is raised again.

    Raises `ValueError` in the name of `function` for a batch of one, and `error` where it is not about memory.
    """
    if not is_out_of_memory(error):
        raise error
    if len(rows) < 2:
        raise ValueError(
            f"{function}: a single prompt must fit into memory; got out of memory at one. "
            "Shorten the longest prompt, load the model in fewer bits, or free memory."
        ) from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = len(rows) // 2
    print(f"{function}: out of memory at {len(rows)} prompts, going on with {middle}", file=sys.stderr)
    return [rows[:middle], rows[middle:]]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out: each device says it in its own way.

    >>> is_out_of_memory(RuntimeError("MPS backend out of memory")), is_out_of_memory(RuntimeError("bad shape"))
    (True, False)
    """
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(part in text for part in _MEMORY_WORDS)
