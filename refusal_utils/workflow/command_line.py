"""The commands of `python -m refusal_utils`: `run`, `report`, `sweep`, `judge`, `audit`, `train-sae` and others.

Commands import what they need when they run: `--help` and `--version` load neither PyTorch nor transformers.
"""

import argparse
import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

from .. import __version__
from .report_command import add_report
from .sweep_command import add_sweep


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0, or 1 after printing what is wrong with a notebook or an argument, or 130 after Ctrl-C."""
    options = _parse(arguments)
    set_thread_defaults()
    try:
        with _interruptible():
            options.act(options)
    except KeyboardInterrupt:
        print("\nStopped. What is finished is kept; the same command continues from there.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        todo = "Run pip install 'refusal-utils[notebooks]'."
        print(f"\nThe package {error.name} is needed and not installed. {todo}", file=sys.stderr)
        return 1
    except Exception as error:
        from ..notebooks import NotebookFailure

        if not isinstance(error, (NotebookFailure, ValueError, OSError)):
            raise
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


def set_thread_defaults() -> None:
    """Let idle OpenMP threads sleep, unless the user chose a policy: spinning, two runs slow each other several times.

    OpenMP reads the variable once, so this must happen before torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Inside, a request to end (`kill`, a closed terminal) acts like Ctrl-C, which also ends the notebook's process."""
    names = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    changed = [name for name in names if signal.getsignal(name) is signal.SIG_DFL]  # `nohup` ignores SIGHUP
    if threading.current_thread() is not threading.main_thread():
        changed = []
    for name in changed:
        signal.signal(name, signal.default_int_handler)
    try:
        yield
    finally:
        for name in changed:
            signal.signal(name, signal.SIG_DFL)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options; an unknown one ends the program, with a near miss if there is one."""
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        from ..checks import did_you_mean

        known = re.findall(r"--\w+", options.parser.format_help())
        near = next(filter(None, (did_you_mean(each, known) for each in unknown)), "")
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}. {near}".rstrip())
    if options.command is None:
        options.parser.error("a command is needed: run, report, sweep, judge, audit, train-sae, settings or methods")
    return options


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End the program with `message`, and a near miss of the command that does not exist."""
        if wrong := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            from ..checks import did_you_mean

            message = f"{message}. {did_you_mean(wrong[1], re.findall(r'[a-z-]+', wrong[2]))}".rstrip()
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m refusal_utils", description="Run the refusal geometry notebooks.")
    parser.add_argument("--version", action="version", version=f"refusal-utils {__version__}")
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    run = commands.add_parser("run", help="execute the notebooks in order, skipping finished ones")
    run.add_argument("--list", action="store_true", help="show each notebook's question, needs and duration; run none")
    run.add_argument(
        "--notebooks", nargs="+", default=(), metavar="NN", help="run only these: 03 06, or 03,06, or their names"
    )
    run.add_argument("--size", metavar="SIZE", help="'quick', 'standard' (the default) or 'full'; see `settings`")
    run.add_argument("--prompts", metavar="SOURCE", help="'builtin', 'paper', a folder of prompt files, or one file")
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "default": [], "metavar": "NAME=VALUE"}
    run.add_argument("--set", help="set parameters of the notebooks (the command `settings` lists them)", **several)
    run.add_argument("--fresh", action="store_true", help="run finished notebooks again")
    run.add_argument("--jobs", type=int, metavar="N", help="notebooks at once (1; with a small model on a CPU, 2)")
    run.add_argument("--plan", action="store_true", help="show rows, tokens, memory and minutes; run none")
    run.add_argument("--minutes", type=float, metavar="N", help="choose sizes with which the run takes N minutes")
    run.set_defaults(act=_run, parser=run)
    model = "'bundled' (the default), 'smollm2', a Hugging Face id, a folder, or a .gguf file"
    run.add_argument("--model", metavar="ID", help=model)
    run.add_argument("--out", metavar="DIR", help="the figures folder of all models, or of this one")
    add_report(commands, model)
    judge = commands.add_parser("judge", help="measure a judge on files of labelled responses")
    judge.add_argument("files", nargs="+", metavar="FILE", help=".jsonl or .csv with columns prompt, response, label")
    judge.add_argument(
        "--judge", default="phrases", metavar="NAME", help="'phrases' (the default), 'wildguard', 'self'"
    )
    judge.add_argument("--model", metavar="ID", help="the chat model that judges, for 'self'")
    judge.set_defaults(act=_judge)
    add_sweep(commands)
    _add_audit(commands, model)
    _add_train_sae(commands, model)
    settings = commands.add_parser("settings", help="list the notebooks' parameters, and what --size sets")
    settings.set_defaults(act=_settings, parser=settings)
    methods = commands.add_parser("methods", help="list the ways to find directions, with their options and sources")
    methods.set_defaults(act=_methods, parser=methods)
    return parser


def _add_audit(commands: Any, model: str) -> None:
    audit = commands.add_parser("audit", help="which refusal directions an edited checkpoint lost or moved")
    for name in ("base", "edited"):
        audit.add_argument(name, metavar=name.upper(), help=model)
    audit.add_argument("--prompts", metavar="SOURCE", help="as for `run`")
    audit.add_argument("--n", type=int, default=16, metavar="N", help="prompts of each category (16)")
    for name in ("layer", "pos"):
        audit.add_argument(f"--{name}", type=int, metavar=name.upper(), help="of the decision state, if not the usual")
    audit.set_defaults(act=_audit, parser=audit)


def _add_train_sae(commands: Any, model: str) -> None:
    train = commands.add_parser("train-sae", help="train sparse autoencoders of a model's layers, and measure them")
    train.add_argument("--model", metavar="ID", help=model)
    train.add_argument("--prompts", metavar="SOURCE", help="as for `run`")
    train.add_argument("--layers", type=int, nargs="+", metavar="N", help="blocks whose outputs are read")
    train.add_argument("--kind", default="topk", metavar="KIND", help="'topk' (the default) or 'jumprelu'")
    for name, what in (("latents", "number of latents"), ("l0", "how many fire"), ("samples", "states seen")):
        train.add_argument(f"--{name}", type=int, metavar="N", help=what)
    train.add_argument("--out", metavar="DIR", help="the folder to write; by default where notebook 14 looks")
    train.set_defaults(act=_train_sae, parser=train)


def _run(options: argparse.Namespace) -> None:
    from .settings import read_settings

    own = {"SIZE": options.size, "MODEL": options.model, "PROMPTS": options.prompts, "FIGURES_DIR": options.out}
    settings = read_settings(options.set, **own)
    from .runner import list_notebooks, run_notebooks

    if options.list:
        print(list_notebooks(options.notebooks))
        return
    chosen: dict[str, Any] = {}
    if options.minutes is not None:
        from .planning.command import fit_run

        asked = settings, options.minutes, options.notebooks, options.jobs
        settings, chosen = fit_run(*asked, fresh=options.fresh)
    elif options.plan:
        from .planning.command import print_plan

        print_plan(settings, options.notebooks, options.jobs)
    if not options.plan:
        run_notebooks(settings, options.notebooks, fresh=options.fresh, n_jobs=options.jobs, chosen=chosen)


def _judge(options: argparse.Namespace) -> None:
    from ..judging import measure_judge, named_judge
    from ..model.chat_model import load_chat_model

    chat = load_chat_model(options.model) if options.model else None
    print(measure_judge(options.files, named_judge(options.judge, chat)).round(3).to_string(index=False))


def _audit(options: argparse.Namespace) -> None:
    from .settings import read_settings

    place = {"PROMPTS": options.prompts, "LAYER": options.layer, "POS": options.pos}
    base, edited = (read_settings((), MODEL=name, **place) for name in (options.base, options.edited))
    from ..methods import audit
    from ..model.sources import require_model
    from ..prompts.loading import load_prompts

    for each in (base, edited):  # before any is loaded
        require_model(each.MODEL)
    prompts = load_prompts(split="train", source=base.PROMPTS)
    found = audit(base.MODEL, edited.MODEL, prompts, n_prompts=options.n, layer=options.layer, pos=options.pos)
    print(found.describe(), found.table().round(2).to_string(), sep="\n\n")


def _train_sae(options: argparse.Namespace) -> None:
    from .settings import read_settings

    settings = read_settings((), MODEL=options.model, PROMPTS=options.prompts)
    from ..latents.command import train_and_measure
    from ..model.chat_model import load_chat_model
    from ..model.names import FIGURES, cache_key
    from ..prompts.loading import load_prompts

    given = {"architecture": options.kind, "n_latents": options.latents, "l0": options.l0, "n_samples": options.samples}
    cache = FIGURES.parent / ".cache"
    folder = options.out or cache / "saes" / cache_key(settings.MODEL)
    prompts, chat = load_prompts(source=settings.PROMPTS), load_chat_model(settings.MODEL)
    own = {name: value for name, value in given.items() if value is not None}
    measured = train_and_measure(chat, prompts, options.layers, folder, cache_dir=cache, **own)
    print(measured.table().T.round(3).to_string(), os.path.relpath(folder), sep="\n")


def _settings(options: argparse.Namespace) -> None:
    from .settings import describe_settings

    print(describe_settings())


def _methods(options: argparse.Namespace) -> None:
    from ..methods import methods_table

    for name, row in methods_table().iterrows():  # a block for each: one line would be wider than a terminal
        print(
            f"{name}: {row.pop('title')}", *(f"  {key:8}{value}" for key, value in row.items() if value), "", sep="\n"
        )
