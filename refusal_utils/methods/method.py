"""What a method is: a name, where it comes from, and a function from captured states to directions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..directions import DirectionSet, Provenance

Fit = Callable[[Mapping[str, Tensor], Tensor, Provenance], DirectionSet]


@dataclass(frozen=True)
class Method:
    """One way to find refusal directions.

    `fit(refused, answered, provenance)`: `refused` holds states [prompt, d_model] by category, `answered` those of the
    benign prompts; it returns one unit direction per category. `source`: the paper and equation.
    """

    name: str
    title: str
    source: str
    fit: Fit
