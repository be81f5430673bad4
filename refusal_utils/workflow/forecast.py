"""How far a sweep over several models is, and how long the rest will take."""

import time
from collections.abc import Mapping

from .progress import clock
from .sweep_plan import Receipt


class Forecast:
    """Counts receipts, and estimates the time left from the seconds per block of each model.

    A model without a computed block is expected to take as long as the mean of the others. Blocks that were there
    before cost no time and are not measured.
    """

    def __init__(self, blocks: Mapping[str, int]) -> None:
        self.blocks = dict(blocks)
        self.done = dict.fromkeys(blocks, 0)
        self.computed = dict.fromkeys(blocks, 0)
        self.seconds = dict.fromkeys(blocks, 0.0)
        self.n_failed = 0
        self._began = time.monotonic()

    def add(self, receipt: Receipt) -> None:
        """Count a block."""
        model = receipt.task.model
        self.done[model] += 1
        self.n_failed += bool(receipt.error)
        if not (receipt.error or receipt.was_there):
            self.computed[model] += 1
            self.seconds[model] += receipt.seconds

    def seconds_left(self, elapsed: float) -> float | None:
        """The time that the blocks left take at the pace of the `elapsed` seconds; None before one is computed.

        Workers side by side count through that pace: the seconds of all blocks so far, over the seconds elapsed.
        """
        measured = {model: self.seconds[model] / n for model, n in self.computed.items() if n}
        if not measured or not elapsed:
            return None
        usual = sum(measured.values()) / len(measured)
        work = sum((n - self.done[model]) * measured.get(model, usual) for model, n in self.blocks.items())
        return work / max(sum(self.seconds.values()) / elapsed, 1e-9)

    def text(self) -> str:
        """Blocks and models finished, failed blocks, and the time left."""
        n_models = sum(self.done[model] == n for model, n in self.blocks.items())
        parts = [f"sweep: {sum(self.done.values())} of {sum(self.blocks.values())} blocks"]
        parts += [f"{n_models} of {len(self.blocks)} models"]
        parts += [f"{self.n_failed} failed"] if self.n_failed else []
        left = self.seconds_left(time.monotonic() - self._began)
        if left is not None:
            unseen = sum(n > self.done[model] and not self.computed[model] for model, n in self.blocks.items())
            guess = f" ({unseen} models not measured yet)" if unseen else ""
            parts += [f"{clock(left)} left{guess}"]
        return ", ".join(parts)
