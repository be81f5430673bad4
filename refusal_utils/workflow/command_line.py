"""The commands `run`, `report`, `judge` and `settings` of `python -m refusal_utils`.

Commands import what they need when they run: `--help` and `--version` load neither PyTorch nor transformers.
"""

import argparse
import os
import sys
from typing import Any

from .. import __version__


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0, or 1 after printing what is wrong with a notebook or an argument, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    set_thread_defaults()
    from .notebooks import NotebookFailure

    try:
        options.act(options)
    except (NotebookFailure, ValueError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Finished notebooks are kept; the same command continues from there.", file=sys.stderr)
        return 130
    return 0


def set_thread_defaults() -> None:
    """Let idle OpenMP threads sleep, unless the user chose a policy: spinning, two runs slow each other several times.

    OpenMP reads the variable once, so this must happen before torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m refusal_utils", description="Run the refusal geometry notebooks.")
    parser.add_argument("--version", action="version", version=f"refusal-utils {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute the notebooks in order, skipping finished ones")
    run.add_argument("--list", action="store_true", help="show each notebook's question, needs and duration; run none")
    run.add_argument("--notebooks", nargs="*", default=(), metavar="NN", help="run only these, by number")
    run.add_argument("--size", metavar="SIZE", help="'quick', 'standard' (the default) or 'full'; see `settings`")
    run.add_argument("--prompts", metavar="SOURCE", help="'builtin', 'paper', a folder of prompt files, or one file")
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "default": [], "metavar": "NAME=VALUE"}
    run.add_argument("--set", help="set parameters of the notebooks (the command `settings` lists them)", **several)
    run.add_argument("--fresh", action="store_true", help="run finished notebooks again")
    run.set_defaults(act=_run)
    report = commands.add_parser("report", help="compare every number with the paper's; writes CSV and HTML")
    report.add_argument("--models", nargs="+", metavar="ID", help="several models, and figures of them side by side")
    report.set_defaults(act=_report)
    model = "'bundled' (the default), 'smollm2', a Hugging Face id, a folder, or a .gguf file"
    for command in (run, report):
        command.add_argument("--model", metavar="ID", help=model)
        command.add_argument("--out", metavar="DIR", help="the figures folder of all models, or of this one")
    judge = commands.add_parser("judge", help="measure a judge on files of labelled responses")
    judge.add_argument("files", nargs="+", metavar="FILE", help=".jsonl or .csv with columns prompt, response, label")
    judge.add_argument(
        "--judge", default="phrases", metavar="NAME", help="'phrases' (the default), 'wildguard', 'self'"
    )
    judge.add_argument("--model", metavar="ID", help="the chat model that judges, for 'self'")
    judge.set_defaults(act=_judge)
    settings = commands.add_parser("settings", help="list the notebooks' parameters, and what --size sets")
    settings.set_defaults(act=_settings)
    return parser


def _run(options: argparse.Namespace) -> None:
    from .runner import list_notebooks, run_notebooks
    from .settings import read_settings

    if options.list:
        print(list_notebooks(options.notebooks))
        return
    own = {"SIZE": options.size, "MODEL": options.model, "PROMPTS": options.prompts, "FIGURES_DIR": options.out}
    settings = read_settings(options.set, **own)
    run_notebooks(settings, options.notebooks, fresh=options.fresh)


def _report(options: argparse.Namespace) -> None:
    from ..paper.claims import check_claims
    from ..paper.models import compare_models
    from ..paper.report import write_report
    from .runner import figures_root
    from .settings import read_settings

    settings = [read_settings((), MODEL=model, FIGURES_DIR=options.out) for model in options.models or [options.model]]
    for each in settings:
        *paths, counts = write_report(each.MODEL, figures_root(each))
        claims = check_claims(paths[0].parent, each.MODEL).table().drop(columns=["why", "setting"])
        print(counts.to_string(), claims.round(2).to_string(), *map(os.path.relpath, paths), sep="\n\n")
    if options.models:
        paths = compare_models([each.MODEL for each in settings], figures_root(settings[0]))
        print(*map(os.path.relpath, paths), sep="\n")


def _judge(options: argparse.Namespace) -> None:
    from ..judging import measure_judge, named_judge
    from ..model.chat_model import load_chat_model

    chat = load_chat_model(options.model) if options.model else None
    print(measure_judge(options.files, named_judge(options.judge, chat)).round(3).to_string(index=False))


def _settings(options: argparse.Namespace) -> None:
    from .settings import describe_settings

    print(describe_settings())
