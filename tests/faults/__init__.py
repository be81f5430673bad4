"""What goes wrong on real machines, provoked on purpose: `python -m tests.faults` (`make faults`) prints a table.

A fault is a function that is called with the number of the try, an empty folder and the `World`, and that fails an
assertion if the suite does not withstand it. `tests/test_faults.py` runs the first few tries of each.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from refusal_utils.model.chat_model import ChatModel, load_chat_model


@dataclass
class World:
    """What the faults share: the bundled model on one thread (so that processes can fork), and unbroken results."""

    results: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def chat(self) -> ChatModel:
        torch.set_num_threads(1)
        return load_chat_model("bundled", device="cpu")

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """`make()`, called once for each name."""
        if name not in self.results:
            self.results[name] = make()
        return self.results[name]

    def close(self) -> None:
        """Remove the caches of the unbroken results."""
        for name, path in self.results.items():
            if name.startswith("cache of"):
                shutil.rmtree(path)


@dataclass(frozen=True)
class Fault:
    """One kind of fault: what it is, how often the full table provokes it, and the function that does so."""

    name: str
    n_tries: int
    provoke: Callable[[int, Path, World], None]


FAULTS: list[Fault] = []


def fault(name: str, n_tries: int) -> Callable[[Callable[[int, Path, World], None]], Callable]:
    """Registers a function as a fault."""

    def register(provoke: Callable[[int, Path, World], None]) -> Callable:
        FAULTS.append(Fault(name, n_tries, provoke))
        return provoke

    return register


from . import damage, machines, processes, workers  # noqa: E402, F401  each registers its faults
