"""Ways to find refusal directions, one file each, all on the same captured states.

A method is a module of this folder that defines `METHOD`, a `Method`; `METHODS` finds it automatically. To add a
method, add a file: every comparison of methods then includes it.
"""

from importlib import import_module
from pkgutil import iter_modules

from ..checks import require
from .method import Method, SearchMethod, StateMethod, per_category

__all__ = ["METHODS", "Method", "SearchMethod", "StateMethod", "named_method", "per_category"]


def _find_methods() -> dict[str, Method]:
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    methods = [module.METHOD for module in modules if hasattr(module, "METHOD")]
    return {method.name: method for method in methods}


METHODS: dict[str, Method] = _find_methods()


def named_method(name: str) -> Method:
    """The method called `name`. Raises `ValueError` for an unknown one."""
    must = f"the method must be one of {', '.join(METHODS)}"
    require(name in METHODS, "named_method", must, repr(name), "Choose one of these.")
    return METHODS[name]
