"""The engine `ray`: actors of Ray Core, one for a model and a GPU, or for a model and a share of the CPUs.

Ray Core and not Ray Data, for three reasons. A model must stay loaded while its blocks pass, so the natural unit is an
actor per model; Ray Data has one pool of equal actors per operator, so thirteen models are thirteen pipelines. Ray Data
drops a block that fails (`max_errored_blocks`) or stops the whole run at it; here it is tried again, then named, and
the rest is kept. And its checkpoints mark rows as done in a format of its own, while blocks on disk under hashes are
read by every engine.

An actor is never restarted by Ray (`max_restarts=0`). Its death counts as one attempt at the block that it computed,
and a new actor takes its place, so a block that kills every worker is given up after `ATTEMPTS` and not tried for ever.
"""

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ...checks import invalid
from ..sweep_plan import Receipt, SweepPlan, Task
from ..turns import Turns
from .engine import ATTEMPTS, Engine, Options, reason

_EVERY = 0.5  # seconds between two looks at what cannot be waited for


def run(plan: SweepPlan, tasks: Sequence[Task], options: Options) -> Iterator[Receipt]:
    """A receipt for every task.

    Raises `ValueError` without Ray or a cluster at `address`, and if no worker starts in time.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        todo = "Run pip install 'refusal-utils[ray]', or use --engine local."
        raise invalid("sweep", "Ray must be installed", "none", todo) from error
    own = not ray.is_initialized()
    if own:
        _require_cluster(options.address, options.patience)
        connect(ray, options.address, plan.threads * (options.n_workers or len(plan.models)))
    crew = _Crew(ray, plan, Turns(tasks, ATTEMPTS), options)
    try:
        yield from crew.receipts()
    finally:
        crew.end()
        if own:
            ray.shutdown()


def connect(ray: Any, address: str | None, n_cpus: int) -> str:
    """The address of the cluster joined: the one at `address`, or a new one on this machine with `n_cpus`.

    Ray gives a node half a minute to start, which can be too short on a busy machine, so this is tried again. Raises
    `ValueError` if there is no cluster.
    """
    how: dict[str, Any] = {"log_to_driver": False, "include_dashboard": False, "logging_level": "ERROR"}
    if address is not None:
        return ray.init(address=address, **how).address_info["address"]
    why = ""
    for _ in range(ATTEMPTS):
        try:
            return ray.init(address="local", num_cpus=n_cpus, **how).address_info["address"]
        except Exception as error:  # Ray raises no class of its own
            why = reason(error)
            ray.shutdown()
    raise invalid("sweep", "a Ray cluster must start on this machine", why, "Try again, or use --engine local.")


def _require_cluster(address: str | None, patience: float) -> None:
    """Raise `ValueError` unless another process can join the cluster in time; one that waits for a dead one may die."""
    if address is None:
        return
    join = f"import ray; ray.init(address={address!r}, log_to_driver=False, logging_level='ERROR')"
    must, got = f"a Ray cluster must run at {address}", "no answer"
    todo = "Start one with `ray start --head`, or leave --address out for one on this machine."
    try:
        subprocess.run([sys.executable, "-c", join], capture_output=True, text=True, check=True, timeout=patience)
    except subprocess.TimeoutExpired as error:
        raise invalid("sweep", must, f"{got} within {patience:g} s", todo) from error
    except subprocess.CalledProcessError as error:
        errors = [line for line in error.stderr.splitlines() if re.match(r"[A-Za-z.]*Error: ", line)]
        raise invalid("sweep", must, errors[-1][:200] if errors else got, todo) from error


class _Actor:
    """What runs in the process of a worker. It starts without a model, to tell a slow start from a slow loading."""

    def __init__(self, plan: SweepPlan) -> None:
        self.plan = plan
        self.worker: Any = None

    def started(self) -> None:
        """Nothing: an answer means that the process is there."""

    def load(self, model: str) -> None:
        """Free the model of before, and load another."""
        if self.worker is not None:
            self.worker.close()
        self.worker = self.plan.worker(model)

    def block(self, number: int) -> Receipt:
        """The receipt of a block of the loaded model."""
        return self.worker.block(number)


class _Seat(NamedTuple):
    """An actor, its model, and what it does now: it starts or loads (no task), or computes a block."""

    actor: Any
    model: str
    stage: str
    since: float
    task: Task | None = None


class _Crew:
    """The actors of one run, by the reference of what each of them does now."""

    def __init__(self, ray: Any, plan: SweepPlan, turns: Turns, options: Options) -> None:
        self.ray, self.plan, self.turns, self.options = ray, plan, turns, options
        gpus = options.gpus if options.gpus is not None else float(ray.cluster_resources().get("GPU", 0) > 0)
        self.needs = {"num_cpus": plan.threads, "num_gpus": gpus}
        self.seats: dict[Any, _Seat] = {}
        self.lost: dict[str, int] = {}  # workers that died before they had loaded a model
        self.n_workers = options.n_workers or self._room()

    def receipts(self) -> Iterator[Receipt]:
        """The receipts of all tasks."""
        while self.turns.n_open:
            self._fill()
            ready, _ = self.ray.wait([*self.seats], timeout=_EVERY)
            for reference in ready:
                yield from self._advance(reference)
            self._require_start()

    def end(self) -> None:
        """End the processes of all actors."""
        for seat in self.seats.values():
            with suppress(Exception):  # the cluster may be gone
                self.ray.kill(seat.actor)

    def _room(self) -> int:
        """How many workers the cluster has room for now, at least one."""
        has = self.ray.cluster_resources()
        fits = [has.get("CPU", 0) // self.needs["num_cpus"]]
        fits += [has.get("GPU", 0) // self.needs["num_gpus"]] if self.needs["num_gpus"] else []
        return max(1, int(min(fits)))

    def _fill(self) -> None:
        """Start actors up to the number of workers, as long as there are blocks that no worker has."""
        while len(self.seats) < self.n_workers:
            model = self.turns.model([seat.model for seat in self.seats.values()])
            waiting = sum(seat.model == model and seat.task is None for seat in self.seats.values())
            if model is None or waiting >= self.turns.n_left(model):
                return
            actor = self.ray.remote(max_restarts=0, max_task_retries=0, **self.needs)(_Actor).remote(self.plan)
            self.seats[actor.started.remote()] = _Seat(actor, model, "starts", time.monotonic())

    def _advance(self, reference: Any) -> Iterator[Receipt]:
        """What follows from a result: receipts of finished or failed blocks, and something else to do for the actor."""
        seat, errors = self.seats.pop(reference), self.ray.exceptions
        try:
            found = self.ray.get(reference)
        except errors.RayTaskError as error:  # raised by our code; the actor lives
            yield from self._raised(seat, reason(error.cause))
        except errors.RayError as error:
            yield from self._died(seat, f"its worker died ({type(error).__name__})")
        else:
            if seat.task is not None:
                yield self.turns.finished(found)
            if seat.stage == "starts":
                self._load(seat, seat.model)
                return
            self.lost.pop(seat.model, None)
            self._next(seat)

    def _raised(self, seat: _Seat, why: str) -> Iterator[Receipt]:
        if seat.task is None:
            yield from self.turns.give_up(seat.model, why)
        elif receipt := self.turns.failed(seat.task, why):
            yield receipt
        self._next(seat)

    def _died(self, seat: _Seat, why: str) -> Iterator[Receipt]:
        if seat.task is not None:
            receipt = self.turns.failed(seat.task, why)
            yield from [receipt] if receipt else []
            return
        self.lost[seat.model] = self.lost.get(seat.model, 0) + 1
        if self.lost[seat.model] >= ATTEMPTS:
            yield from self.turns.give_up(seat.model, f"{why} before it had loaded the model")

    def _next(self, seat: _Seat) -> None:
        """Give an actor the next block of its model, else another model, else end it."""
        task = self.turns.take(seat.model)
        if task is not None:
            reference = seat.actor.block.remote(task.number)
            self.seats[reference] = seat._replace(stage="computes", since=time.monotonic(), task=task)
            return
        model = self.turns.model([other.model for other in self.seats.values()])
        if model is None:
            self.ray.kill(seat.actor)
        else:
            self._load(seat, model)

    def _load(self, seat: _Seat, model: str) -> None:
        reference = seat.actor.load.remote(model)
        self.seats[reference] = _Seat(seat.actor, model, "loads", time.monotonic())

    def _require_start(self) -> None:
        """Raise `ValueError` if all actors have been starting for too long."""
        now, seats = time.monotonic(), [*self.seats.values()]
        if seats and all(seat.stage == "starts" and now - seat.since > self.options.patience for seat in seats):
            has = {name: self.ray.cluster_resources().get(name, 0) for name in ("CPU", "GPU")}
            wanted = f"{self.needs['num_cpus']} CPUs and {self.needs['num_gpus']:g} GPUs"
            must = f"a worker with {wanted} must start within {self.options.patience:g} seconds"
            got = f"none; the cluster has {has['CPU']:g} CPUs and {has['GPU']:g} GPUs, some perhaps in use"
            raise invalid("sweep", must, got, "Lower --threads or --gpus, add nodes, or raise --patience.")


ENGINE = Engine("ray", "actors on a Ray cluster, one for each model and GPU or share of the CPUs", run)
