"""Ways to find refusal directions, one file each, all on the same captured states.

A method is a module of this folder that defines `METHOD`, a `Method`; `METHODS` finds it automatically. To add a
method, add a file: every comparison of methods then includes it.
"""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules

from jaxtyping import Float
from torch import Tensor

from ..checks import require_known
from ..directions import DirectionSet, Provenance
from .method import Method

__all__ = ["METHODS", "Method", "fit"]


def _find_methods() -> dict[str, Method]:
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    methods = [module.METHOD for module in modules if hasattr(module, "METHOD")]
    return {method.name: method for method in methods}


METHODS: dict[str, Method] = _find_methods()


def fit(
    name: str,
    refused: Mapping[str, Float[Tensor, "_ d_model"]],
    answered: Float[Tensor, "answered_prompt d_model"],
    provenance: Provenance,
) -> DirectionSet:
    """The directions from the answered prompts to each refused side, as the method called `name` finds them.

    `refused`: states [prompt, d_model] by category; `provenance`: where they were read. Raises `ValueError` for an
    unknown method, and as the method does.
    """
    require_known("fit", "the method", name, METHODS)
    return METHODS[name].fit(refused, answered, provenance)
