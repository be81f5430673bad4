"""How much a run measures: the parameters that `--size` sets, in one table."""

from typing import Any, Literal, NamedTuple

SizeName = Literal["quick", "standard", "full"]


class Size(NamedTuple):
    """A parameter's value at each size."""

    quick: Any
    standard: Any
    full: Any


# `standard` has the defaults of `Settings`. A number above what there is means all of it.
SIZES = {
    "N_PROMPTS": Size(32, 96, 1000),
    "N_POOL": Size(32, None, None),
    "N_HELD_OUT": Size(16, 64, 1000),
    "N_BUCKET": Size(16, 50, 100),
    "N_COMPARED": Size(16, 20, 100),
    "N_VALIDATION": Size(8, 16, 32),
    "N_SUFFIXED": Size(2, 3, 16),
    "N_UPDATES": Size(24, 74, 74),
    "CONE_K": Size(1, 2, 4),
    "BUDGETS": Size([0.05, 0.2], [0.05, 0.1, 0.2], [0.05, 0.1, 0.2]),
    "N_TRAINED": Size(64, None, None),
    "GAPS": Size("few", None, None),
    "CONTROL_GAPS": Size("few", None, None),
    "N_CONTROLS": Size(2, 5, 10),
    "N_TWINS": Size(4, 16, 64),
    "N_PAIRS": Size(4, 8, 20),
    "N_RANDOM": Size(1, 3, 10),
    "N_SINGLE": Size(8, 40, 200),
    "MAX_NEW_TOKENS": Size(32, 50, 50),
    "N_BOOTSTRAP": Size(300, 1000, 2000),
    "N_DRAWS": Size(200, 500, 2000),
}


def size_values(size: SizeName) -> dict[str, Any]:
    """The parameters that a size sets to something else than their default.

    >>> size_values("standard"), size_values("quick")["N_PROMPTS"]
    ({}, 32)
    """
    return {name: getattr(row, size) for name, row in SIZES.items() if getattr(row, size) != row.standard}


def describe_sizes() -> str:
    """The table as text: a line per parameter, with its value at each size.

    >>> print(*describe_sizes().splitlines()[:2], sep="\\n")
    --size          quick        standard          full
    N_PROMPTS       32           96                1000
    """
    rows = [("--size", *Size._fields), *((name, *row) for name, row in SIZES.items())]
    return "\n".join(f"{name:<15} {quick!s:<12} {standard!s:<17} {full}" for name, quick, standard, full in rows)
