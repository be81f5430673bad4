"""The command line: `python -m refusal_utils run [--model ID] [--notebooks 01 03]`."""

import argparse
import sys

from .chat_model import BUNDLED
from .runner import NotebookFailure, run_notebooks


def main(arguments: list[str] | None = None) -> int:
    """Parse and run; 1 and one message when a notebook fails or an argument is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m refusal_utils", description="Run the notebooks of the refusal suite."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute the notebooks in order")
    run.add_argument("--model", default=BUNDLED, help="'bundled', a Hugging Face hub id, or a folder")
    run.add_argument("--notebooks", nargs="*", default=(), metavar="NN", help="only these, by number")
    options = parser.parse_args(arguments)
    try:
        run_notebooks(options.model, options.notebooks)
    except (NotebookFailure, ValueError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; finished notebooks and cached activations are kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
