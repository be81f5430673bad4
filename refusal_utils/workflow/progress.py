"""What the terminal shows while a notebook executes: its cell, and how far the loop in the kernel is."""

import json
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from ..model.progress import STATUS
from ..model.work import WORK, Work

EVERY = 1.0, 30.0  # seconds between two updates: on a terminal, elsewhere
_CLEAR = "\r\x1b[K"
_OPEN: list["ProgressLine"] = []  # notebooks that run side by side share the line of a terminal
_WRITING = threading.RLock()


class ProgressLine:
    """While open, shows progress on `stream`: one line that is updated on a terminal, elsewhere a line every 30 s.

    `variables` are for the kernel's environment: they name the files in which its loops report (`model.progress`,
    `model.work`). `work` is what the loops did, known once the line is closed.
    """

    def __init__(self, name: str, stream: Any = None, every: float | None = None) -> None:
        self.name, self.stream = name, stream or sys.stderr
        self.on_terminal = self.stream.isatty()
        self.every = every or EVERY[not self.on_terminal]
        self.cell, self.began, self.told = "starting", time.monotonic(), ""
        self.work = Work()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self) -> "ProgressLine":
        """Start to show."""
        self._folder = tempfile.TemporaryDirectory(prefix="refusal_utils_")
        self._file = Path(self._folder.name) / "status.json"
        self.variables = {STATUS: str(self._file), WORK: str(self._file.with_name("work.jsonl"))}
        _OPEN.append(self)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and clear the line of a terminal."""
        self._done.set()
        self._thread.join()
        _OPEN.remove(self)
        self.work = Work.read(Path(self.variables[WORK]))
        self._folder.cleanup()
        if self.on_terminal:
            self._put(_CLEAR)

    def text(self) -> str:
        """The notebook, its minutes so far, its cell, and the rows and time left of the running loop."""
        minutes = f"{(time.monotonic() - self.began) / 60:.1f} min"
        return f"{self.name}: {minutes}, {self.cell}{describe_status(self._status())}"

    def _status(self) -> dict[str, Any]:
        try:
            return json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):  # no loop is running
            return {}

    def _show(self) -> None:
        while not self._done.wait(self.every):
            estimate = self._status().get("estimate", "")
            is_new, self.told = bool(estimate) and estimate != self.told, estimate or self.told
            if not self.on_terminal:
                self._put(f"{self.text()}{f'; {estimate}' if is_new else ''}\n")
                continue
            if is_new:
                self._put(f"{_CLEAR}{estimate}\n")
            self._put(_CLEAR + _side_by_side([line.text() for line in [*_OPEN]]))

    def _put(self, text: str) -> None:
        with _WRITING:
            self.stream.write(text)
            self.stream.flush()


def announce(text: str) -> None:
    """Print a line that stays, above the line of running notebooks."""
    with _WRITING:
        for line in [each for each in _OPEN if each.on_terminal][:1]:
            line._put(_CLEAR)
        print(text, flush=True)


def _side_by_side(texts: list[str]) -> str:
    """The texts in one line of the terminal, all of them cut to the same width if they do not fit."""
    width = shutil.get_terminal_size().columns - 1
    line = " | ".join(texts)
    return line if len(line) <= width else " | ".join(text[: (width + 3) // len(texts) - 3] for text in texts)


def describe_status(status: dict[str, Any]) -> str:
    """What a loop reports, as text: its name, its rows, and its rate and time left once they have been measured.

    >>> describe_status({"name": "capture", "done": 300, "total": 1200, "rate": 7.5, "left": 120.0})
    '; capture 300 of 1,200 rows, 7.5 rows/s, 2:00 left'
    >>> describe_status({})
    ''
    """
    if not status:
        return ""
    rows = f"; {status['name']} {status['done']:,} of {status['total']:,} rows"
    if not status["rate"]:
        return rows
    return f"{rows}, {status['rate']:.1f} rows/s, {clock(status['left'])} left"


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, or as hours, minutes and seconds.

    >>> clock(120.4), clock(3725)
    ('2:00', '1:02:05')
    """
    whole = round(seconds)
    hours = f"{whole // 3600}:{whole // 60 % 60:02}" if whole >= 3600 else f"{whole // 60}"
    return f"{hours}:{whole % 60:02}"
