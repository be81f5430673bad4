"""The first tries of every fault; `make faults` provokes each many times and prints a table."""

import os

import pytest

from .faults import FAULTS, World

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the faults fork processes")


@pytest.fixture(scope="module")
def world():
    shared = World()
    yield shared
    shared.close()


def cases():
    for each in FAULTS:
        yield pytest.param(each, id=each.name, marks=[pytest.mark.slow] if "search" in each.name else [])


@pytest.mark.parametrize("fault", [*cases()])
def test_the_suite_withstands(fault, world, tmp_path):
    for number in range(min(fault.n_tries, 5 if "damaged" in fault.name else 2)):
        (folder := tmp_path / str(number)).mkdir()
        fault.provoke(number, folder, world)
