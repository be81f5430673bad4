"""How far a model is steered, in gaps, unless the strengths are given.

The bundled model was trained to be steerable and refuses everything at one gap. Other models need several: their lists
come from first looks at a Qwen 2.5 model of half a billion parameters, which turned between one and five gaps.
"""

from collections.abc import Sequence
from typing import Literal

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

    None stands for the model's own list, and `"few"` for fewer of these; a list is returned as it is.

    >>> choose_gaps("bundled", [1.0], "few"), choose_gaps("any/other")[0]
    (([1.0], [0.45, 1.0]), [-2.0, 1.0, 2.0, 3.0, 4.0, 6.0])
    """
    is_bundled = model in (BUNDLED, BUNDLED_TOKENS)
    own = {BUNDLED: _OF_BUNDLED, BUNDLED_TOKENS: _OF_TOKENS}.get(model, _OF_OTHERS)
    few = _FEW_OF_BUNDLED if is_bundled else _FEW_OF_OTHERS
    both = [
        own[place] if given is None else few[place] if given == "few" else given
        for place, given in enumerate((gaps, control_gaps))
    ]
    return list(both[0]), list(both[1])
