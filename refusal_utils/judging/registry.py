"""Judges by name. A judge is a module of this package with a `NAME` and a function `load()` that returns it."""

import pkgutil
from importlib import import_module
from types import ModuleType

from ..checks import require_known
from .judgement import Judge


def named_judge(name: str) -> Judge:
    """The judge with that name: `"phrases"` (the default, no download), `"wildguard"` (the paper's), or one of your own.

    Raises `ValueError` for an unknown name, and if the judge cannot be loaded.
    """
    judges = known_judges()
    todo = "Use one of these, or add a file to refusal_utils/judging."
    require_known("named_judge", "the judge", name, sorted(judges), todo)
    return judges[name].load()


def known_judges() -> dict[str, ModuleType]:
    """The modules of this package that define a judge, by its name."""
    package = import_module(__package__ or "")
    modules = [import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)]
    return {module.NAME: module for module in modules if hasattr(module, "NAME")}
