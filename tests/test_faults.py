"""The first tries of every fault; `make faults` provokes each many times and prints a table."""

import os

import pytest

from .faults import FAULTS, World
from .faults.work import WORKS

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the faults fork processes")


@pytest.fixture(scope="module")
def world():
    shared = World()
    yield shared
    shared.close()


def cases():
    for each in FAULTS:
        is_slow = any(word in each.name for word in ("search", "SAE", "Ray"))
        yield pytest.param(each, id=each.name, marks=[pytest.mark.slow] if is_slow else [])


@pytest.mark.parametrize("fault", [*cases()])
def test_the_suite_withstands(fault, world, tmp_path):
    for number in range(min(fault.n_tries, 5 if "damaged" in fault.name else 2)):
        (folder := tmp_path / str(number)).mkdir()
        fault.provoke(number, folder, world)


def test_every_kind_of_work_is_killed_thirty_times_and_loses_200_files():
    """What `make faults` provokes; the tests above stop after a few tries."""
    n_tries = {each.name: each.n_tries for each in FAULTS}
    for name in WORKS:
        assert n_tries[f"kill -9 during {name}: the same command goes on, bit-identical"] == 30
        assert n_tries[f"a damaged file in the cache of {name}: detected, computed again"] == 200
    assert {"capture", "generation", "search by gradients", "SAE training"} <= {*WORKS}
