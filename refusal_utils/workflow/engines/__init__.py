"""Where the blocks of a sweep are computed, one file for each engine.

An engine is a module of this folder that defines `ENGINE`, an `Engine`: a name, a title, and a function `run` that
yields a receipt for every task. `ENGINES` finds it automatically, so an engine is added by adding a file. `local`
computes in this process, `ray` on a cluster. Both call the same `Worker`, which makes their rows equal; see `engine`.
"""

from importlib import import_module
from pkgutil import iter_modules

from ...checks import require_known
from .engine import Engine, Options

__all__ = ["ENGINES", "Engine", "Options", "named_engine"]


def _find_engines() -> dict[str, Engine]:
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    engines = [module.ENGINE for module in modules if hasattr(module, "ENGINE")]
    return {engine.name: engine for engine in engines}


ENGINES: dict[str, Engine] = _find_engines()


def named_engine(name: str) -> Engine:
    """The engine called `name`. Raises `ValueError` for an unknown one."""
    require_known("named_engine", "the engine", name, ENGINES, "Use one of these, or add a file to workflow/engines.")
    return ENGINES[name]
