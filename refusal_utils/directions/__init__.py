"""Refusal directions: the maths on tensors, and named sets of directions with their provenance.

Everything here works on activations that were already captured; nothing runs a model.
"""

from .ablation import ablate, project
from .comparison import centred_cosines, cosine_matrix, off_diagonal, whitened_cosines
from .direction_set import DirectionSet, Provenance
from .estimation import feature_direction, mean_difference, mean_direction, normalize, random_directions

__all__ = [
    "DirectionSet",
    "Provenance",
    "ablate",
    "centred_cosines",
    "cosine_matrix",
    "feature_direction",
    "mean_difference",
    "mean_direction",
    "normalize",
    "off_diagonal",
    "project",
    "random_directions",
    "whitened_cosines",
]
