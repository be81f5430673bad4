"""`python -m tests.mutants [N [PACKAGE...]]`: change N random places of each package, and print what no test notices.

A copy of the last commit is changed, one place at a time, by cosmic-ray (`pip install cosmic-ray`, which nothing else
needs). A change is killed if a fast test of its package fails. docs/mutants.md has what was measured.
"""

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = ("directions", "geometry", "steering", "judging", "tradeoff", "heads/shares.py")
SEED, SECONDS = 1, 400
ANNOTATIONS = "BinaryOperator_BitOr"  # `A | B` of types is no code that runs


def sample(package: str, n: int) -> list[Any]:
    """`n` random mutations of a package of the working directory, always the same ones for the same code."""
    from cosmic_ray.commands import init
    from cosmic_ray.modules import find_modules
    from cosmic_ray.work_db import WorkDB, use_db

    with tempfile.TemporaryDirectory() as folder, use_db(f"{folder}/all.sqlite", WorkDB.Mode.create) as found:
        init(find_modules([Path("refusal_utils") / package]), found, {})
        mutations = [item.mutations[0] for item in found.work_items]
    places = [each for each in mutations if ANNOTATIONS not in each.operator_name]
    places.sort(key=lambda each: (str(each.module_path), each.operator_name, each.start_pos, each.occurrence))
    return random.Random(SEED).sample(places, min(n, len(places)))


def tests_of(module: Path) -> str:
    """The command that runs the tests of one module first, then its doctests, then those of its package."""
    package = Path("tests") / module.parent.name
    own = package / f"test_{module.stem}.py"
    paths = [*([own] if own.is_file() else []), module, package]
    pytest = f"{sys.executable} -m pytest -x -q -p no:xdist"
    return f"{pytest} -m 'not slow' {' '.join(map(str, paths))}"


def main() -> None:
    """Print, for every package, how many mutations were killed, and the survivors."""
    from cosmic_ray.mutating import mutate_and_test

    n, packages = int(sys.argv[1]) if sys.argv[1:] else 60, sys.argv[2:] or PACKAGES
    with tempfile.TemporaryDirectory() as copy:
        subprocess.run(["git", "clone", "--quiet", ROOT, copy], check=True)
        os.chdir(copy)
        for package in packages:
            tried = sample(package, n)
            results = [mutate_and_test([each], tests_of(Path(each.module_path)), SECONDS) for each in tried]
            alive = [each.diff for each in results if not each.is_killed]
            print(f"{package}: {len(tried) - len(alive)} of {len(tried)} killed", *alive, sep="\n", flush=True)


if __name__ == "__main__":
    main()
