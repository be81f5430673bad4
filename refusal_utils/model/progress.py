"""How far a loop over batches is and how long it will take: on a bar, or for the process that executes the notebook."""

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import torch
from tqdm.auto import tqdm

from .store import write_whole

STATUS = "REFUSAL_UTILS_STATUS"  # environment variable: a file that replaces the bar, read by `workflow.progress`
LONG = 60.0  # seconds left after the first batch from which on an estimate is printed
_WRITE_EVERY = 0.5  # seconds


class Progress:
    """Rows done of `total`, on a bar called `name` if `bar` is set.

    After the first computed batch, one line estimates the time left if that is more than a minute. `what` is what the
    rows are ("responses of up to 50 tokens"), for that line. If the variable `STATUS` names a file, progress goes there
    as JSON instead of a bar, so that an executed notebook does not fill with bars.
    """

    def __init__(self, name: str, total: int, what: str = "rows", *, bar: bool = True) -> None:
        self.name, self.total, self.what = name, total, what
        self.done = self.computed = 0
        self.estimate = ""
        self.began, self.written = time.monotonic(), 0.0
        self.file = Path(os.environ[STATUS]) if os.environ.get(STATUS) else None
        self.bar = tqdm(total=total, desc=name, unit="row", disable=not bar or self.file is not None)
        self.is_shown = bar or self.file is not None

    def __enter__(self) -> "Progress":
        """Show that nothing is done yet."""
        self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the bar, or remove the file."""
        self.bar.close()
        if self.file:
            with suppress(OSError):
                self.file.unlink(missing_ok=True)

    @property
    def rate(self) -> float:
        """Rows computed per second; 0 before the first."""
        return self.computed / max(time.monotonic() - self.began, 1e-9)

    @property
    def seconds_left(self) -> float:
        """The time that the other rows take at this rate; 0 before it is known."""
        return (self.total - self.done) / self.rate if self.computed else 0.0

    def skip(self, n: int) -> None:
        """Count `n` rows that were known already: they say nothing about the time that the others take."""
        self.done += n
        self.bar.update(n)

    def advance(self, n: int) -> None:
        """Count `n` rows that were computed, and print the estimate after the first of them."""
        is_first = not self.computed
        self.computed += n
        self.skip(n)
        if is_first and self.is_shown and self.seconds_left > LONG:
            self.estimate = self._estimated()
            self.bar.write(self.estimate, file=sys.stderr)
        if is_first or self.done >= self.total or time.monotonic() - self.written > _WRITE_EVERY:
            self._write()

    def _estimated(self) -> str:
        peak = peak_gigabytes()
        memory = f", memory at most {peak:.1f} GB so far" if peak else ""
        minutes = f"about {self.seconds_left / 60:.0f} min left"
        todo = f"{self.total - self.done:,} more {self.what}"
        return f"{self.name}: {todo}, {minutes}{memory} (measured on the first batch, the longest prompts)"

    def _write(self) -> None:
        if self.file is None:
            return
        told = {"name": self.name, "done": self.done, "total": self.total, "estimate": self.estimate}
        told |= {"rate": self.rate, "left": self.seconds_left}
        with suppress(OSError):  # a run must not stop because its progress cannot be shown
            write_whole(self.file, json.dumps(told).encode())
        self.written = time.monotonic()


def peak_gigabytes() -> float | None:
    """The most memory that this process has used: on the GPU if there is one, else resident; None if not known."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
