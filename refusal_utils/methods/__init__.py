"""Ways to find refusal directions, one file each, all on the same captured states.

A method is a module of this folder that defines `METHOD`, a `Method`; `METHODS` finds it automatically. To add a
method, add a file: every comparison of methods then includes it.
"""

from importlib import import_module
from pkgutil import iter_modules

import pandas as pd

from ..checks import require_known
from .arditi_selection import select_place
from .audit import Audit, audit
from .comparison import MethodComparison, compare_methods
from .method import Method, SearchMethod, StateMethod, per_category
from .selection import Selection
from .subset_search import SubsetSearch, search_subset

__all__ = [
    "METHODS",
    "Audit",
    "Method",
    "MethodComparison",
    "SearchMethod",
    "Selection",
    "StateMethod",
    "SubsetSearch",
    "audit",
    "compare_methods",
    "methods_table",
    "named_method",
    "per_category",
    "search_subset",
    "select_place",
]


def _find_methods() -> dict[str, Method]:
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    methods = [module.METHOD for module in modules if hasattr(module, "METHOD")]
    methods.sort(key=lambda method: method.name != "difference_in_means")  # the usual one comes first
    return {method.name: method for method in methods}


METHODS: dict[str, Method] = _find_methods()


def named_method(name: str) -> Method:
    """The method called `name`. Raises `ValueError` for an unknown one."""
    require_known("named_method", "the method", name, METHODS)
    return METHODS[name]


def methods_table() -> pd.DataFrame:
    """By name: the title of every method, what it needs, which hook its source reads, its options, and the source."""
    rows = {
        name: {
            "title": method.title,
            "needs": ", ".join((*(["states"] if isinstance(method, StateMethod) else []), *method.needs)),
            "reads": getattr(method, "reads", ""),
            "options": ", ".join(f"{option}={default!r}" for option, default in method.options.items()),
            "source": method.source,
        }
        for name, method in METHODS.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
