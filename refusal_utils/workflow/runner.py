"""Execute the notebooks, skipping finished ones: `python -m refusal_utils run`."""

import os
import textwrap
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checks import did_you_mean, invalid, require, require_folder
from ..model.defaults import check_layer
from ..model.names import BUNDLED, BUNDLED_TOKENS, FIGURES, claim_folder, folder_names, model_folder, recorded_layers
from ..notebooks import find_notebooks, parameter_defaults, read_title
from .records import RENDERER, Run
from .settings import Settings
from .side_by_side import FILLS_CACHE, needs_cache_first, run_side_by_side, shared_threads, usual_jobs

if TYPE_CHECKING:
    from .execution import Kernels


def run_notebook(path: Path, out: Path, parameters: dict[str, Any], kernels: "Kernels | None" = None) -> float:
    """Execute one notebook, write the executed copy to the folder `out`, and return the minutes it took.

    `kernels` collects the processes of several that run side by side. Raises `ValueError` for a parameter that the
    notebook does not have, `NotebookFailure` if a cell fails, and `NotebookDied` if the notebook's process ends.
    """
    from .execution import Kernels, execute

    known = parameter_defaults(path)
    if unknown := sorted(set(parameters) - set(known)):
        must = f"parameters must be among {', '.join(sorted(known))}"
        todo = did_you_mean(unknown[0], known) or f"See the parameters cell of {path.name}."
        raise invalid("run_notebook", must, ", ".join(unknown), todo)
    out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PLOTLY_RENDERER", RENDERER)
    began = time.time()
    execute(path, out / path.name, parameters, kernels or Kernels())
    return (time.time() - began) / 60


def run_notebooks(
    settings: Settings | None = None,
    numbers: Sequence[str] = (),
    *,
    fresh: bool = False,
    n_jobs: int | None = None,
    chosen: dict[str, Any] | None = None,
) -> None:
    """Execute notebooks, printing a line with the minutes of each; after the first failure no other begins.

    Each notebook gets the `settings` that are among its parameters, and what their SIZE sets. A finished notebook
    (`Run.is_done`) is skipped unless `fresh`. `n_jobs` notebooks run at once, each after those that it needs; by
    default two with a small model on two or more cores, which they share. `chosen`: sizes that were chosen for a time,
    for the record. Raises `ValueError` for a setting that no chosen notebook has, for a model or prompts that cannot be
    found, for folders that cannot be written to, for a notebook whose inputs neither exist nor are written by a chosen
    one, all before anything runs, and as `run_notebook` does.
    """
    settings = settings or Settings()
    n_jobs = usual_jobs(settings.MODEL) if n_jobs is None else n_jobs
    todo = "Choose one if memory is short."
    require(n_jobs >= 1, "run_notebooks", "at least one notebook must run at once", n_jobs, todo)
    paths = find_notebooks(numbers)
    _require_known(paths, settings)
    runs = [_plan(path, settings) for path in paths]
    _require_inputs(runs, settings)
    for folder in (runs[0].figures, runs[0].cache):
        require_folder("run_notebooks", folder)
    _require_sources(settings)
    claim_folder(settings.MODEL, runs[0].figures.parent)
    _advise(settings)
    _run_all(runs, fresh, min(n_jobs, len(runs)), chosen or {})
    from ..gallery import build_gallery  # loads PyTorch

    for page in build_gallery(runs[0].figures.parent, runs[0].cache, show_prompts=settings.SHOW_PROMPTS):
        print(f"All models so far: {os.path.relpath(page)}")
    print(f"Figures and executed notebooks are in {os.path.relpath(runs[0].figures)}")


def _run_all(runs: Sequence[Run], fresh: bool, n_jobs: int, chosen: dict[str, Any]) -> None:
    from .execution import Kernels, close_loop
    from .progress import announce

    kernels, with_all_cores = Kernels(shared_threads(n_jobs)), Kernels()
    by_number = {run.number: run for run in runs}
    is_large = runs[0].parameters.get("MODEL") not in (BUNDLED, BUNDLED_TOKENS)  # theirs are filled in seconds

    def work(number: str) -> None:
        run = by_number[number]
        digest = run.digest()
        if not fresh and run.is_done(digest):
            announce(f"{run.notebook.stem:<28} already finished, skipped (--fresh runs it again)")
            return
        try:
            own = with_all_cores if number == FILLS_CACHE and is_large else kernels
            minutes = run_notebook(run.notebook, run.executed.parent, run.parameters, own)
        finally:
            close_loop()
        run.write_record(digest, minutes, own.work.get(run.notebook.stem), chosen)
        announce(f"{run.notebook.stem:<28} {minutes:5.1f} min")

    def stop() -> None:
        kernels.end()
        with_all_cores.end()

    needs = {run.number: [number for number in run.needs if number in by_number] for run in runs}
    run_side_by_side(needs_cache_first(needs), work, n_jobs, stop)


def figures_root(settings: Settings) -> Path:
    """The absolute folder with one folder per model; FIGURES_DIR may also be the folder of this model."""
    if "FIGURES_DIR" not in settings.given:
        return FIGURES.resolve()
    root = Path(settings.FIGURES_DIR).expanduser().resolve()
    return root.parent if root.name in folder_names(settings.MODEL) else root


def list_notebooks(numbers: Sequence[str] = ()) -> str:
    """A paragraph per notebook: number and name, question, needs, and duration."""
    parts = []
    for path in find_notebooks(numbers):
        lines = [
            textwrap.fill(f"    {name:<10}{text}", 118, subsequent_indent=" " * 14, break_on_hyphens=False)
            for name, text in asdict(read_title(path)).items()
        ]
        parts.append("\n".join([f"{path.name[:2]}  {path.stem[3:].replace('_', ' ')}", *lines]))
    return "\n\n".join(parts)


def _plan(path: Path, settings: Settings) -> Run:
    root = figures_root(settings)
    cache = settings.CACHE_DIR if "CACHE_DIR" in settings.given else FIGURES.parent / ".cache"
    cache = Path(cache).expanduser().resolve()
    given = settings.sized | {"MODEL": settings.MODEL, "FIGURES_DIR": str(root), "CACHE_DIR": str(cache)}
    known = parameter_defaults(path)
    own = {name: value for name, value in given.items() if name in known}
    return Run(path, own, model_folder(settings.MODEL, root), cache)


def _require_known(chosen: Sequence[Path], settings: Settings) -> None:
    known = {name for path in chosen for name in parameter_defaults(path)}
    if unknown := sorted(set(settings.given) - known - {"MODEL", "FIGURES_DIR", "CACHE_DIR"}):
        must = f"a chosen notebook must have the parameter; they have {', '.join(sorted(known))}"
        todo = did_you_mean(unknown[0], known) or "Leave it out, or choose other notebooks."
        raise invalid("run_notebooks", must, ", ".join(unknown), todo)


def _require_sources(settings: Settings) -> None:
    """Raise `ValueError` unless the model, its layer and position and the user's own prompts can be found and read."""
    layer, n_layers = settings.LAYER if isinstance(settings.LAYER, int) else None, recorded_layers(settings.MODEL)
    if layer is not None and n_layers is not None:
        check_layer(layer, n_layers)
    for model in (settings.MODEL, settings.EDITED or BUNDLED):
        if model != BUNDLED:
            from ..model.sources import require_model  # loads PyTorch, which the bundled model does not need here

            require_model(model)
    if (layer, settings.POS, settings.SYSTEM_PROMPT) != (None, None, None):
        from ..model.setup import check_setup  # as above

        check_setup(settings.MODEL, layer=layer, pos=settings.POS, system_prompt=settings.SYSTEM_PROMPT)
    from ..prompts import load_languages, load_prompts, load_suffixes  # load pandas

    if settings.PROMPTS not in ("builtin", "paper"):
        load_prompts(source=settings.PROMPTS)
    if settings.LANGUAGES != "builtin":
        load_languages(settings.LANGUAGES)
    if settings.SUFFIXES != "builtin":
        load_suffixes(settings.SUFFIXES)


def _advise(settings: Settings) -> None:
    """Print how this CPU would be faster, if a real model is about to run on it in float32 by default."""
    if settings.MODEL not in (BUNDLED, BUNDLED_TOKENS) and settings.DTYPE is None:
        from ..model.loading import has_fast_bfloat16  # loads PyTorch

        if has_fast_bfloat16():
            print(
                "Precision: float32. This CPU is two to four times faster with --set DTYPE=bfloat16 (docs/models.md)."
            )


def _require_inputs(runs: Sequence[Run], settings: Settings) -> None:
    """Raise `ValueError` for the first run whose inputs are missing, naming all notebooks to run."""
    for place, run in enumerate(runs):
        earlier = {each.number for each in runs[:place]}
        missing = [file for file in run.missing_inputs() if file.name[:2] not in earlier]
        if missing:
            wanted = {number for each in runs for number in (each.number, *_producers(each, settings))}
            must = f"notebook {run.number} needs files that earlier notebooks write"
            got = f"no {', '.join(map(os.path.relpath, missing))}"
            raise invalid("run_notebooks", must, got, f"Run --notebooks {' '.join(sorted(wanted))}.")


def _producers(run: Run, settings: Settings) -> set[str]:
    """The numbers of the notebooks that must run first to write the missing inputs of `run`."""
    numbers = {file.name[:2] for file in run.missing_inputs()}
    earlier = [_plan(path, settings) for path in find_notebooks(sorted(numbers))] if numbers else []
    return numbers.union(*(_producers(each, settings) for each in earlier))
