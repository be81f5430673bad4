"""One format for errors about arguments, and one for claims that a notebook checks."""

import difflib
import os
from collections.abc import Container, Iterable
from numbers import Integral
from pathlib import Path

import numpy as np

_KINDS = {str: "a text", Path: "a path", Integral: "a whole number", type(None): "None"}


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


def require_known(
    function: str, what: str, value: object, known: Iterable[object], todo: str = "Use one of these."
) -> None:
    """Raise `ValueError` in the name of `function` unless `value` is among `known`; a near miss is suggested."""
    names = [str(name) for name in known]
    must, todo = f"{what} must be one of {', '.join(names)}", did_you_mean(value, names) or todo
    require(isinstance(value, str) and value in names, function, must, repr(value), todo)


def require_columns(function: str, rows: Container[str], *columns: str) -> None:
    """Raise `ValueError` in the name of `function` unless the frame `rows` has these columns.

    >>> require_columns("audit", {"text": ["How?"]}, "text")
    """
    missing = [name for name in columns if name not in rows]
    must, todo = f"prompts must have the columns {', '.join(columns)}", "Read their file with load_prompts."
    require(not missing, function, must, f"none called {' or '.join(missing)}", todo)


def require_types(function: str, kinds: tuple[type, ...], **given: object) -> None:
    """Raise `ValueError` in the name of `function` for the first of its arguments `given` that is not of `kinds`.

    The kinds are str, Path, Integral and type(None). True and False are no whole numbers.

    >>> require_types("open_study", (str, Path), prompts="builtin", cache_dir=Path(".cache"))
    """
    known = " or ".join(_KINDS[kind] for kind in kinds)
    for name, value in given.items():
        of_kind = isinstance(value, kinds) and not isinstance(value, bool)
        require(of_kind, function, f"{name} must be {known}", f"{value!r:.60}", "Check its type.")


def did_you_mean(value: object, known: Iterable[str]) -> str:
    """A question that names what is spelled most like `value`; empty if nothing is.

    >>> did_you_mean("advise", ["advice", "benign"]), did_you_mean("x", ["advice"])
    ("Did you mean 'advice'?", '')
    """
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(str(value).lower(), names, n=1)
    return f"Did you mean {names[near[0]]!r}?" if near and names[near[0]] != value else ""


def require_folder(function: str, path: Path) -> None:
    """Raise `ValueError` in the name of `function` unless `path` is a folder to write to, or one can be made there."""
    place = next((each for each in (path, *path.parents) if os.path.lexists(each)), path)
    why = "a file" if not place.is_dir() else "" if os.access(place, os.W_OK | os.X_OK) else "write-protected"
    must, got = "results need a folder that can be written to", f"{path}" if place == path else f"{path} in {place}"
    require(not why, function, must, f"{got}, which is {why}", "Choose another folder.")


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
