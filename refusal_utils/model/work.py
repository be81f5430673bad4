"""The work that a process does with the model: how many rows each loop ran, and in how many seconds."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

WORK = "REFUSAL_UTILS_WORK"  # environment variable: a file to which every loop appends a line when it ends


@dataclass(frozen=True)
class Work:
    """Rows and seconds by loop, such as `generate` and `capture_activations`.

    A row is a prompt under a condition that ran through the model; rows that were read from a cache are not counted.
    """

    rows: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def total_seconds(self) -> float:
        """The seconds that all loops took."""
        return sum(self.seconds.values())

    def as_dict(self) -> dict[str, dict[str, float]]:
        """The same as plain values, for a file."""
        return asdict(self)

    @classmethod
    def read(cls, path: Path) -> "Work":
        """What the process that was given `path` has reported; empty if it ran no loop."""
        rows, seconds = Counter[str](), Counter[str]()
        with suppress(FileNotFoundError):
            for line in path.read_text(encoding="utf-8").splitlines():
                loop, n_rows, took = json.loads(line)
                rows[loop] += n_rows
                seconds[loop] += took
        return cls(dict(rows), {loop: round(took, 3) for loop, took in seconds.items()})


def report_work(loop: str, n_rows: int, seconds: float) -> None:
    """Append what a loop did to the file that the variable `WORK` names, if it names one."""
    path = os.environ.get(WORK)
    if path and n_rows:
        with suppress(OSError), open(path, "a", encoding="utf-8") as file:  # a run must not stop over its record
            file.write(json.dumps([loop, n_rows, seconds]) + "\n")
