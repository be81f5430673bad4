"""A method: its name, its source, and a function from captured states to directions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..directions import DirectionSet, Provenance

Fit = Callable[[Mapping[str, Tensor], Tensor, Provenance], DirectionSet]


@dataclass(frozen=True)
class Method:
    """One way to find refusal directions.

    `fit(refused, answered, provenance)`: `refused` has states [prompt, d_model] by category, `answered` those of the
    benign prompts. It returns one unit direction per category. `source`: the paper and equation.
    """

    name: str
    title: str
    source: str
    fit: Fit
