"""Files of a cache that are not as they were written: flipped bits, cut off, swapped, empty, of an older version."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from . import World, fault
from .work import WORKS, whole

Damage = Callable[[Path, list[Path], random.Random], None]


def flip(path: Path, others: list[Path], rng: random.Random) -> None:
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, others: list[Path], rng: random.Random) -> None:
    """Lose the end."""
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(1, len(content))])


def swap(path: Path, others: list[Path], rng: random.Random) -> None:
    """Get the content of another file of the cache."""
    path.write_bytes(rng.choice([each for each in others if each != path] or others).read_bytes())


def empty(path: Path, others: list[Path], rng: random.Random) -> None:
    """Lose everything."""
    path.write_bytes(b"")


def older(path: Path, others: list[Path], rng: random.Random) -> None:
    """Have been written by a version that knew no checksums."""
    content = path.read_bytes()
    path.write_bytes(content.replace(b"sha256", b"shaOLD", 1) if b"sha256" in content else b'["key", [1, 2], true]\n')


KINDS: tuple[Damage, ...] = (flip, truncate, swap, empty, older)


def _register(name: str) -> None:
    @fault(f"a damaged file in the cache of {name}: detected, computed again", 200)
    def damaged(number: int, folder: Path, world: World) -> None:
        expected, rng = whole(world, name), random.Random(number)
        cache = Path(shutil.copytree(world.results[f"cache of {name}"], folder / "cache"))
        files = sorted(path for path in cache.rglob("*") if path.is_file())
        KINDS[number % len(KINDS)](rng.choice(files), files, rng)
        for _ in range(2):  # the second time, what was computed again is found
            assert WORKS[name](world, cache) == expected


for each in WORKS:
    _register(each)
