"""The command `sweep`: many models, one command, on an engine."""

import argparse
from pathlib import Path
from typing import Any


def add_sweep(commands: Any) -> None:
    """Add the command to the others of `python -m refusal_utils`."""
    sweep = commands.add_parser("sweep", help="steer several models on the same prompts, here or on a cluster; resumes")
    sweep.add_argument("--models", nargs="+", metavar="ID", required=True, help="as for `run --model`")
    sweep.add_argument("--prompts", metavar="SOURCE", help="as for `run`")
    sweep.add_argument("--out", type=Path, metavar="DIR", help="results; on a cluster, a folder that all nodes share")
    sweep.add_argument("--engine", default="local", metavar="NAME", help="'local' (the default) or 'ray'")
    sweep.add_argument("--address", metavar="ADDRESS", help="of a Ray cluster, such as 'auto'; else one is started")
    sweep.add_argument("--workers", type=int, metavar="N", help="blocks computed at once (as many as fit)")
    sweep.add_argument("--threads", type=int, metavar="N", help="CPU threads of each worker (cores / workers)")
    sweep.add_argument("--gpus", type=float, metavar="N", help="GPUs of each worker (1 if there are any)")
    sweep.add_argument("--patience", type=float, metavar="SECONDS", help="wait for the first worker (300)")
    sweep.add_argument("--n-prompts", type=int, metavar="N", help="prompts a category that make a direction (96)")
    sweep.add_argument("--held-out", type=int, dest="n_held_out", metavar="N", help="other prompts a kind, steered (8)")
    sweep.add_argument("--gaps", type=float, nargs="+", metavar="X", help="strengths in gaps (the model's own)")
    sweep.add_argument(
        "--controls", type=int, dest="n_controls", metavar="N", help="random directions of two kinds (5)"
    )
    sweep.add_argument("--max-new-tokens", type=int, metavar="N", help="length of a response (50)")
    sweep.add_argument("--block", type=int, metavar="N", help="prompts in one unit of work (8)")
    sweep.add_argument("--seed", type=int, metavar="N", help="of every draw (0)")
    sweep.add_argument("--judge", default="phrases", metavar="NAME", help="'phrases' (the default) or 'wildguard'")
    sweep.add_argument("--dtype", metavar="DTYPE", help="precision of the models, as for `run --set DTYPE=...`")
    for name in ("layer", "pos"):
        sweep.add_argument(f"--{name}", type=int, metavar=name.upper(), help="of the decision state, if not the usual")
    sweep.set_defaults(act=_sweep, parser=sweep)


_PLAN = ("n_prompts", "n_held_out", "n_controls", "max_new_tokens", "block", "seed")


def _sweep(options: argparse.Namespace) -> None:
    from .settings import read_settings

    own = {"PROMPTS": options.prompts, "DTYPE": options.dtype, "LAYER": options.layer, "POS": options.pos}
    settings = [read_settings((), MODEL=model, **own) for model in options.models]
    from ..model.sources import require_model
    from .engines import Options, named_engine
    from .model_sweep import sweep_models
    from .sweep_plan import SweepPlan

    engine = named_engine(options.engine)
    for each in settings:  # before any is loaded
        require_model(each.MODEL)
    from ..judging import named_judge
    from ..model.names import FIGURES
    from .side_by_side import n_cores

    threads = options.threads or max(1, n_cores() // (options.workers or 1))
    given = {name: getattr(options, name) for name in _PLAN if getattr(options, name) is not None}
    out = (options.out or FIGURES.parent / ".cache" / "sweeps").expanduser().resolve()
    place: dict[str, Any] = {"layer": settings[0].LAYER, "pos": settings[0].POS, "dtype": settings[0].DTYPE}
    models, steps = tuple(each.MODEL for each in settings), {"gaps": options.gaps, "control_gaps": options.gaps}
    plan = SweepPlan(models, out, settings[0].PROMPTS, threads=threads, **steps, **place, **given)
    where = Options(options.address, options.workers, options.gpus, options.patience or Options.patience)
    sweep_models(plan, engine, where, named_judge(options.judge))
