"""How far a model is steered, in gaps, unless the strengths are given.

The bundled model was trained to be steerable and refuses everything at one gap. Other models need several: their lists
come from first looks at a Qwen 2.5 model of half a billion parameters, which turned between one and five gaps.
"""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Literal

from ..checks import require
from ..model.names import BUNDLED, BUNDLED_TOKENS

Strengths = Sequence[float] | Literal["few"] | None

# (strengths of the directions, strengths of the controls): all of them, and those of a quick run.
_OF_BUNDLED = (-0.5, 0.15, 0.25, 0.35, 0.45, 0.7, 1.0), (-0.5, 0.45, 1.0, 2.0)
_OF_TOKENS = (-1.0, -0.5, 0.45, 0.55, 0.6, 0.65, 0.7), (-0.5, 0.7, 1.0, 2.0)  # it turns between 0.45 and 0.7
_OF_OTHERS = (-2.0, 1.0, 2.0, 3.0, 4.0, 6.0), (-2.0, 2.0, 4.0, 6.0)
_FEW_OF_BUNDLED = (-0.5, 0.45, 1.0), (0.45, 1.0)
_FEW_OF_OTHERS = (-2.0, 2.0, 4.0), (2.0, 4.0)


def choose_gaps(model: str, gaps: Strengths = None, control_gaps: Strengths = None) -> tuple[list[float], list[float]]:
    """(strengths of the directions, strengths of the controls) in gaps, for the model called `model`.

    None stands for the model's own list, and `"few"` for fewer of these; a list is returned as it is. Raises
    `ValueError` for anything but a list of finite numbers.

    >>> choose_gaps("bundled", [1.0], "few"), choose_gaps("any/other")[0]
    (([1.0], [0.45, 1.0]), [-2.0, 1.0, 2.0, 3.0, 4.0, 6.0])
    """
    for name, given in {"gaps": gaps, "control_gaps": control_gaps}.items():
        is_known = given is None or (isinstance(given, str) and given == "few")
        is_list = isinstance(given, list | tuple) and len(given) > 0 and all(map(_is_finite, given))
        must, todo = f"{name} must be a list of finite numbers, 'few' or None", "Pass, for example, [0.5, 1.0]."
        require(is_known or is_list, "choose_gaps", must, f"{given!r:.60}", todo)
    is_bundled = model in (BUNDLED, BUNDLED_TOKENS)
    own = {BUNDLED: _OF_BUNDLED, BUNDLED_TOKENS: _OF_TOKENS}.get(model, _OF_OTHERS)
    few = _FEW_OF_BUNDLED if is_bundled else _FEW_OF_OTHERS
    both = [
        own[place] if given is None else few[place] if given == "few" else given
        for place, given in enumerate((gaps, control_gaps))
    ]
    return list(both[0]), list(both[1])


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
