"""One format for errors about arguments: what must hold, what was passed, and what to do about it."""

import torch
from jaxtyping import Float
from torch import Tensor


def invalid(function: str, must: str, got: object, todo: str) -> ValueError:
    """The error to raise for an argument that `function` cannot use: `{function}: {must}; got {got}. {todo}`.

    Raise it with `from` inside an `except` block; elsewhere `require` is shorter.

    >>> invalid("draw_prompts", "n must be at least 1", 0, "Pass a larger n.")
    ValueError('draw_prompts: n must be at least 1; got 0. Pass a larger n.')
    """
    return ValueError(f"{function}: {must}; got {got}. {todo}")


def require(holds: bool, function: str, must: str, got: object, todo: str) -> None:
    """Raise `ValueError` (see `invalid`) unless `holds`."""
    if not holds:
        raise invalid(function, must, got, todo)


def require_finite(function: str, values: Float[Tensor, "..."], what: str) -> None:
    """Raise `ValueError` in the name of `function` unless every entry of `values` is finite."""
    n_bad = int((~torch.isfinite(values)).sum())
    require(
        n_bad == 0, function, f"{what} must be finite", f"{n_bad} NaN or infinite values", "Use bfloat16 or float32."
    )
