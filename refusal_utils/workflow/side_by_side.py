"""Run notebooks side by side: each begins as soon as those that it needs have finished."""

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter

from ..model.names import BUNDLED, SMOLLM2

THREADS = "OMP_NUM_THREADS"
FILLS_CACHE = "02"  # the notebook that searches for the place and generates the unsteered responses
LONGEST_FIRST = ("09", "14", "11", "10", "13")  # as measured on SmolLM2; they take most of the time on every real model


def usual_jobs(model: str) -> int:
    """How many notebooks run at once by default: two with a small model on two or more cores, else one."""
    return min(2, n_cores()) if model in (BUNDLED, SMOLLM2) else 1


def shared_threads(n_jobs: int) -> dict[str, str]:
    """The variable that gives each of several notebooks its share of the cores, unless the user has set it."""
    return {} if n_jobs == 1 or THREADS in os.environ else {THREADS: str(max(1, n_cores() // n_jobs))}


def needs_cache_first(needs: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """`needs` with notebook 02 before all later ones, which then read its states and responses instead of waiting."""
    return {name: {*each, *([FILLS_CACHE] if name > FILLS_CACHE in needs else [])} for name, each in needs.items()}


def start_order(needs: Mapping[str, Iterable[str]], n_jobs: int) -> list[str]:
    """The keys of `needs`: those that others need, if several run at once the longest, and the rest.

    So no long one is left to run alone at the end. Each group keeps the order of `needs`, the longest begin with the
    longest.

    >>> start_order({"01": (), "04": ("01",), "09": ("01",), "14": ("01",)}, 2)
    ['01', '09', '14', '04']
    """
    needed = {name for each in needs.values() for name in each}
    longest = [name for name in LONGEST_FIRST if name in needs and n_jobs > 1]
    return [*dict.fromkeys([*(name for name in needs if name in needed), *longest, *needs])]


def n_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_side_by_side(
    needs: Mapping[str, Iterable[str]], work: Callable[[str], None], n_jobs: int, stop: Callable[[], None]
) -> None:
    """Call `work(name)` for every key of `needs`, at most `n_jobs` at once, each after the names that it needs.

    Of those that can begin, the first in `start_order` does. After the first failure no other begins; those that run
    are finished, and it is raised. If the user interrupts, `stop` must end those.
    """
    sorter, running = TopologicalSorter(needs), dict[Future, str]()
    sorter.prepare()
    order = start_order(needs, n_jobs)
    waiting, failures = list[str](), list[BaseException]()
    with ThreadPoolExecutor(n_jobs) as pool:
        try:
            while sorter.is_active() and not (failures and not running):
                waiting = sorted([*waiting, *sorter.get_ready()], key=order.index)
                while waiting and not failures and len(running) < n_jobs:
                    name = waiting.pop(0)
                    running[pool.submit(work, name)] = name
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    sorter.done(running.pop(done))
                    failures += [error] if (error := done.exception()) else []
        except BaseException:
            stop()
            raise
    if failures:
        raise failures[0]
