"""Judges by name. A judge is a module of this package with a `NAME` and a function `load()` that returns it."""

import pkgutil
from importlib import import_module

from ..checks import require
from .judgement import Judge


def named_judge(name: str) -> Judge:
    """The judge with that name: `"phrases"` (the default, no download), `"wildguard"` (the paper's), or one of your own.

    Raises `ValueError` for an unknown name, and if the judge cannot be loaded.
    """
    package = import_module(__package__ or "")
    modules = [import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)]
    judges = {module.NAME: module for module in modules if hasattr(module, "NAME")}
    must = f"the judge must be one of {', '.join(sorted(judges))}"
    require(
        name in judges, "named_judge", must, repr(name), "Use one of these, or add a file to refusal_utils/judging."
    )
    return judges[name].load()
