"""The command `report`: a model's numbers next to the paper's, its claims, and several models side by side."""

import argparse
import os
from typing import Any


def add_report(commands: Any, model: str) -> None:
    """Add the command to a parser's commands; `model` is the help for a model's name."""
    report = commands.add_parser("report", help="compare every number with the paper's; writes CSV and HTML")
    which = report.add_mutually_exclusive_group()
    several = "models or folders of figures, also side by side; without names, all runs so far"
    which.add_argument("--models", nargs="*", metavar="ID", help=several)
    which.add_argument("--model", metavar="ID", help=model)
    report.add_argument("--out", metavar="DIR", help="the figures folder of all models, or of this one")
    report.set_defaults(act=_report, parser=report)


def _report(options: argparse.Namespace) -> None:
    from .settings import read_settings

    several = options.models is not None
    settings = read_settings((), MODEL=options.model, FIGURES_DIR=options.out)
    from ..gallery import build_gallery
    from ..model.names import owner
    from ..paper.claims import check_claims
    from ..paper.models import compare_models, open_models
    from ..paper.report import write_report
    from .runner import figures_root

    root = figures_root(settings)
    folders = open_models(options.models or () if several else [settings.MODEL], root).folders  # before any is written
    for folder in folders.values():
        model = owner(folder) or folder.name
        *paths, counts = write_report(model, folder.parent)
        claims = check_claims(folder, model).table().drop(columns=["why", "setting"])
        print(counts.to_string(), claims.round(2).to_string(), *map(os.path.relpath, paths), sep="\n\n")
    if several:
        paths = compare_models([*folders.values()], root)
        print(*map(os.path.relpath, [*paths, *build_gallery(root)]), sep="\n")
