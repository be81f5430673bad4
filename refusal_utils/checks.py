"""One format for errors about arguments, and one for claims that a notebook checks."""

import numpy as np
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


def check(claim: str, holds: bool | np.bool_, *, only_if: bool = True) -> None:
    """Print a tick and `claim` if it holds, else raise `AssertionError`.

    With `only_if` false the claim is about another setting (such as the bundled model's numbers); it is not checked.
    """
    if not only_if:
        print(f"–  {claim} (not checked: about the bundled model with default settings)")
        return
    if not holds:
        raise AssertionError(f"does not hold: {claim}")
    print(f"✓  {claim}")
