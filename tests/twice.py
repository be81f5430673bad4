"""`python -m tests.twice [--threads N M]`: run all notebooks twice from an empty cache and compare every table.

Prints a line per table that is not the same byte for byte. The exit code is 1 if a number differs by more than
`--tolerance` of the largest of its column, or a text differs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .tables import differences


def main() -> int:
    """The exit code of the comparison."""
    parser = argparse.ArgumentParser(prog="python -m tests.twice", description=__doc__)
    parser.add_argument("--threads", nargs=2, help="OMP_NUM_THREADS of the first and of the second run")
    parser.add_argument("--tolerance", type=float, default=1e-9, help="largest difference; default %(default)s")
    parser.add_argument("--notebooks", nargs="*", default=[], help="numbers of notebooks; by default all")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place) / number for number in ("first", "second")]
        for folder, threads in zip(folders, options.threads or (None, None), strict=True):
            run(folder, threads, options.notebooks)
        found = differences(*(folder / "figures" / "bundled" for folder in folders))
    print(f"{found['same'].sum()} of {len(found)} tables are the same byte for byte")
    if not found["same"].all():
        print(found[~found["same"]].to_string())
    apart = (found["texts"] > 0) | (found["numbers"] > options.tolerance)
    return int(apart.any() or found.empty)


def run(folder: Path, threads: str | None, notebooks: list[str]) -> None:
    """Execute the notebooks on the bundled model into `folder`, with a cache of its own and without pictures."""
    command = [sys.executable, "-m", "refusal_utils", "run", "--out", str(folder / "figures")]
    command += ["--set", f"CACHE_DIR={folder / 'cache'}", *(["--notebooks", *notebooks] if notebooks else [])]
    own = {"OMP_NUM_THREADS": threads} if threads else {}
    without_chrome = {"PATH": os.path.dirname(sys.executable), "BROWSER_PATH": ""}
    subprocess.run(command, check=True, env=os.environ | own | without_chrome)


if __name__ == "__main__":
    sys.exit(main())
