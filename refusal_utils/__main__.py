"""The command line: `python -m refusal_utils run [--model ID] [--notebooks 01 03]`, and its other commands."""

import argparse
import os
import sys

from .model.chat_model import BUNDLED
from .paper.report import write_report
from .workflow.badges import repository, stamp
from .workflow.runner import (
    NotebookFailure,
    figures_root,
    list_notebooks,
    parse_settings,
    prompts_parameter,
    run_notebooks,
)


def main(arguments: list[str] | None = None) -> int:
    """Parse and run; 1 and one message when a notebook fails or an argument is wrong, 130 when stopped with Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        options.act(options)
    except (NotebookFailure, ValueError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; what is finished is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m refusal_utils", description="The notebooks of the refusal suite.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute the notebooks in order; those that are done are left out")
    run.add_argument("--list", action="store_true", help="show the notebooks, what they ask, need and take; run none")
    run.add_argument("--notebooks", nargs="*", default=(), metavar="NN", help="only these, by number")
    run.add_argument("--prompts", metavar="SOURCE", help="'builtin', 'paper', a folder of prompt files, or one file")
    run.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="a parameter of the notebooks"
    )
    run.add_argument("--fresh", action="store_true", help="run again what is done")
    run.set_defaults(act=_run)
    report = commands.add_parser("report", help="set every number beside the paper's, as CSV and HTML")
    report.set_defaults(act=_report)
    for command in (run, report):
        command.add_argument("--model", default=BUNDLED, metavar="ID", help="'bundled', a hub id, or a folder")
        command.add_argument("--out", metavar="DIR", help="folder of all models' figures, or of this one's (figures/)")
    badges = commands.add_parser(
        "badges", help="write the repository's name into every notebook's badge and Colab cell"
    )
    badges.add_argument("--repo", metavar="OWNER/NAME", help="the GitHub repository (as it is in pyproject.toml)")
    badges.set_defaults(act=_badges)
    return parser


def _report(options: argparse.Namespace) -> None:
    *paths, counts = write_report(options.model, figures_root(options.out, options.model))
    print(counts.to_string(), *map(os.path.relpath, paths), sep="\n")


def _badges(options: argparse.Namespace) -> None:
    changed = stamp(options.repo)
    print(f"{repository()}: {len(changed)} files changed" + "".join(f"\n  {path.name}" for path in changed))


def _run(options: argparse.Namespace) -> None:
    if options.list:
        print(list_notebooks(options.notebooks))
        return
    settings = parse_settings(options.set)
    if options.prompts:
        settings["PROMPTS"] = prompts_parameter(options.prompts)
    run_notebooks(options.model, options.notebooks, settings, out=options.out, fresh=options.fresh)


if __name__ == "__main__":
    sys.exit(main())
