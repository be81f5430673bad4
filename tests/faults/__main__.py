"""`python -m tests.faults [--quick] [WORD...]`: provoke every fault (whose name has a word), and print a table."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import pytest

from . import FAULTS, World


def main() -> int:
    """The exit code: 1 if the suite did not withstand a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="at most three tries of each")
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    world, failed = World(), 0
    for each in FAULTS:
        if options.words and not any(word in each.name for word in options.words):
            continue
        n_tries, n_held, why, began = min(each.n_tries, 3) if options.quick else each.n_tries, 0, "", time.monotonic()
        for number in range(n_tries):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    (own := Path(folder) / "own").mkdir()
                    each.provoke(number, own, world)
                    n_held += 1
                except pytest.skip.Exception as skipped:
                    why, n_tries = f"skipped: {skipped}", n_held
                    break
                except Exception as error:
                    why = why or f"try {number}: {type(error).__name__}: {error}".splitlines()[0]
        failed += n_held < n_tries
        print(f"{each.name:<75} {n_held:>4} of {n_tries:<4} {time.monotonic() - began:6.0f} s  {why}", flush=True)
    world.close()
    return int(failed > 0)


sys.exit(main())
