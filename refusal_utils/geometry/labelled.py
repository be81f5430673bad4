"""Activations with the category of every prompt, so that the sides of all contrasts can be read at any place."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import require
from ..model.capture import Activations
from ..prompts.categories import BENIGN, CATEGORY_IDS
from .gram import Twins


@dataclass(frozen=True, eq=False)
class Labelled:
    """Activations of prompts at some layers and positions, and the category of each prompt (or `"benign"`)."""

    activations: Activations
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raise `ValueError` unless every prompt has a label."""
        n, got = len(self.activations.values), len(self.labels)
        must, todo = "every prompt must have a label", "Take both from the same prompts."
        require(got == n, "Labelled", must, f"{got} labels for {n} prompts", todo)

    def sides(
        self, layer: int, pos: int
    ) -> tuple[dict[str, Float[Tensor, "_ d_model"]], Float[Tensor, "answered_prompt d_model"]]:
        """(states of the refused prompts by category, in the order of the eleven; states of the benign prompts).

        A category without prompts is left out.
        """
        at = self.activations.at(layer, pos)
        present = [name for name in CATEGORY_IDS if name in self.labels]
        own = {name: at[torch.tensor([label == name for label in self.labels])] for name in (*present, BENIGN)}
        return {name: own[name] for name in present}, own[BENIGN]


def paired_sides(refused: Labelled, benign: Labelled, layer: int, pos: int) -> Twins:
    """By category, the states of its refused twins and, in the same order, of their benign twins."""
    own, twins = (side.sides(layer, pos)[0] for side in (refused, benign))
    return {name: (own[name], twins[name]) for name in own}
