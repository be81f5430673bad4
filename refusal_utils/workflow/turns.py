"""Which block a free worker computes next, and which blocks have failed for good."""

from collections import Counter, deque
from collections.abc import Sequence

from .sweep_plan import Receipt, Task


class Turns:
    """The blocks that are left, by model.

    A worker stays with the model that it has loaded; a free one goes to the model with the most blocks left for each of
    its workers. A block is tried `attempts` times.
    """

    def __init__(self, tasks: Sequence[Task], attempts: int) -> None:
        self.attempts = attempts
        self._left: dict[str, deque[Task]] = {}
        self._tried: Counter[Task] = Counter()
        self.n_open = len(tasks)  # those without a receipt
        for task in tasks:
            self._left.setdefault(task.model, deque()).append(task)

    def model(self, busy: Sequence[str]) -> str | None:
        """The model that another worker should load, given those of the workers that there are; None for none."""
        share = {name: len(left) / (1 + busy.count(name)) for name, left in self._left.items() if left}
        return max(share, key=lambda name: share[name]) if share else None

    def n_left(self, model: str) -> int:
        """How many blocks of a model no worker has."""
        return len(self._left[model])

    def take(self, model: str) -> Task | None:
        """The next block of a model; None if none is left that no worker has."""
        return self._left[model].popleft() if self._left[model] else None

    def finished(self, receipt: Receipt) -> Receipt:
        """Count a block as finished or failed, and return its receipt."""
        self.n_open -= 1
        return receipt

    def failed(self, task: Task, why: str) -> Receipt | None:
        """The receipt of a block that has been tried often enough; None if it will be tried again, after the others."""
        self._tried[task] += 1
        if self._tried[task] >= self.attempts:
            return self.finished(Receipt(task, error=why))
        self._left[task.model].append(task)
        return None

    def give_up(self, model: str, why: str) -> list[Receipt]:
        """The receipts of all blocks of a model that no worker has, because the model cannot be loaded."""
        dropped = [*self._left[model]]
        self._left[model].clear()
        return [self.finished(Receipt(task, error=why)) for task in dropped]
