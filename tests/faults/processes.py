"""Processes that are killed, and several that share a cache."""

import os
import random
from pathlib import Path

from . import World, fault
from .work import WORKS, bound, killed, start, whole


def _register(name: str) -> None:
    @fault(f"kill -9 during {name}: the same command goes on, bit-identical", 30)
    def killed_at_a_random_moment(number: int, folder: Path, world: World) -> None:
        expected = whole(world, name)
        moment = random.Random(number).uniform(0, 1) * world.results[f"seconds of {name}"]
        killed(bound(world, name, folder / "cache"), moment)
        assert WORKS[name](world, folder / "cache") == expected

    @fault(f"2 and 4 processes share the cache of {name}", 10)
    def side_by_side(number: int, folder: Path, world: World) -> None:
        expected = whole(world, name)

        def work() -> None:
            assert WORKS[name](world, folder / "cache") == expected

        children = [start(work) for _ in range(2 if number % 2 else 4)]
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(children)
        assert WORKS[name](world, folder / "cache") == expected


for each in WORKS:
    _register(each)
