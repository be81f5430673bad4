"""Disks that are full or closed, memory that runs out, and clocks that go backwards."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from refusal_utils.model import capture
from refusal_utils.steering import decoding

from . import World, fault
from .work import WORKS, bound, killed, whole

NAMES = ("capture", "generation")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of its own of so many bytes in memory; skips if only an administrator may make one."""
    disk = folder / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("mounting a small disk needs an administrator")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


@fault("a full disk: one sentence; with more space, the same command goes on", 10)
def full_disk(number: int, folder: Path, world: World) -> None:
    name = NAMES[number % 2]
    expected = whole(world, name)
    n_pages = 1 + number % 3
    with small_disk(folder, f"{4 * n_pages}k") as disk:
        if name == "generation":  # whose rows are small
            (disk / "other").write_bytes(b"x" * 4096 * n_pages)
        with pytest.raises(ValueError, match="^(capture_activations|generate): .*No space left on device"):
            WORKS[name](world, disk)
        remount(disk, "size=10m")
        assert WORKS[name](world, disk) == expected


@fault("a disk that may only be read: one sentence, and what is there is read", 4)
def closed_disk(number: int, folder: Path, world: World) -> None:
    name = NAMES[number % 2]
    expected = whole(world, name)
    with small_disk(folder, "10m") as disk:
        remount(disk, "ro")
        with pytest.raises(ValueError, match="^(capture_activations|generate): .*Read-only file system"):
            WORKS[name](world, disk)
        remount(disk, "rw")
        WORKS[name](world, disk)
        remount(disk, "ro")
        assert WORKS[name](world, disk) == expected


@fault("a cache of somebody else, without permission: one sentence", 4)
def no_permission(number: int, folder: Path, world: World) -> None:
    name, cache = NAMES[number % 2], folder / "cache"
    whole(world, name)
    cache.mkdir(mode=0o700 if number < 2 else 0)
    for each in (folder, *folder.parents):
        if each.stat().st_mode & 0o777 == 0o700:
            each.chmod(0o711)
    user = os.geteuid()
    os.seteuid(65534) if user == 0 else cache.chmod(0)  # an administrator may read everything
    try:
        with pytest.raises(ValueError, match="^(capture_activations|generate): .*Permission denied"):
            WORKS[name](world, cache)
    finally:
        os.seteuid(user)
        cache.chmod(0o700)


@fault("memory that runs out at every third batch: halved, same result", 4)
def no_memory(number: int, folder: Path, world: World) -> None:
    name = NAMES[number % 2]
    expected, calls = whole(world, name), [number] * (number // 2)
    module, attribute = (capture, "_read_positions") if name == "capture" else (decoding, "forward")
    original = getattr(module, attribute)

    def scarce(chat, rows, *args, **options):
        calls.append(0)
        if len(calls) % 3 == 0 and len(rows) > 1:  # a single prompt must fit
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(chat, rows, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, attribute, scarce)
        assert WORKS[name](world, folder / "cache") == expected
    assert len(calls) > 3


@fault("a clock that was moved back a day: nothing is lost or read twice", 4)
def clock(number: int, folder: Path, world: World) -> None:
    name, cache = NAMES[number % 2], folder / "cache"
    expected, now = whole(world, name), time.time
    killed(bound(world, name, cache), 0.5 * world.results[f"seconds of {name}"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: now() - 86_400)
        assert WORKS[name](world, cache) == expected
        before = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
        assert WORKS[name](world, cache) == expected
    assert {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()} == before
