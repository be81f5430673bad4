"""A sweep whose blocks are texts: it shows what engines do with blocks, without a model and without torch."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from refusal_utils.workflow.engines import Options, named_engine
from refusal_utils.workflow.sweep_plan import Receipt, SweepPlan, Task


@dataclass(frozen=True)
class LightPlan(SweepPlan):
    """Blocks that take `pause` seconds; some of them always raise an error, or always kill their process."""

    pause: float = 0.0
    n: int = 4
    raising: tuple[int, ...] = ()
    killing: tuple[int, ...] = ()

    @property
    def n_blocks(self) -> int:
        return self.n

    def worker(self, model: str) -> "LightWorker":
        return LightWorker(self, model)

    @property
    def starts(self) -> list[tuple[str, int, int]]:
        """(model, block, process) of every block that was begun, in order."""
        log = self.out / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(model, int(number), int(process)) for model, number, process in map(str.split, lines)]

    def contents(self) -> dict[str, str]:
        """What is on disk."""
        return {path.name: path.read_text() for path in sorted(self.blocks.iterdir())}


class LightWorker:
    """Writes the square of a block's number."""

    def __init__(self, plan: LightPlan, model: str) -> None:
        if model == "unknown":
            raise ValueError("no such model")
        self.plan, self.model = plan, model

    def block(self, number: int) -> Receipt:
        task, path = Task(self.model, number), self.plan.blocks / f"{self.model}-{number}"
        if path.exists():
            return Receipt(task, path.name, 1, 0.0, True, "light")
        with (self.plan.out / "log").open("a") as log:
            log.write(f"{self.model} {number} {os.getpid()}\n")
        time.sleep(self.plan.pause)
        if number in self.plan.raising:
            raise ArithmeticError(f"block {number} is odd")
        if number in self.plan.killing:
            os.kill(os.getpid(), signal.SIGKILL)
        path.write_text(str(number**2))
        return Receipt(task, path.name, 1, self.plan.pause, False, "light")

    def close(self) -> None:
        pass


def light_plan(out: Path, models: tuple[str, ...] = ("first", "second"), **options) -> LightPlan:
    plan = LightPlan(models, out, **options)
    plan.blocks.mkdir(parents=True, exist_ok=True)
    return plan


def is_alive(process: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def descendants(process: int) -> set[int]:
    """The processes that a process has started, and those that these have."""
    found = set()
    for task in os.listdir(f"/proc/{process}/task"):
        with open(f"/proc/{process}/task/{task}/children") as file:
            for child in map(int, file.read().split()):
                found |= {child, *descendants(child)}
    return found


def until(holds, seconds: float = 300.0) -> bool:
    """Whether `holds()` comes true within some seconds."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


if __name__ == "__main__":  # python -m tests.workflow.light_sweep OUT PAUSE [ADDRESS]: a driver that can be killed
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in the background ignores it
    running = named_engine("ray").run(
        plan := light_plan(Path(sys.argv[1]), pause=float(sys.argv[2])),
        plan.tasks(),
        Options(address=next(iter(sys.argv[3:]), None), n_workers=2),
    )
    try:
        for receipt in running:
            print(receipt, flush=True)
    except KeyboardInterrupt:
        running.close()
        sys.exit(130)
