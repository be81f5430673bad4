"""Activations with a known direction, for the tests of this folder."""

import torch

from refusal_utils.directions.estimation import normalize


def planted(n: int = 400, d_model: int = 64, gap: float = 5.0, seed: int = 0):
    """(refused, answered, direction): two clouds `gap` apart along a known direction."""
    generator = torch.Generator().manual_seed(seed)
    direction = normalize(torch.randn(d_model, generator=generator))
    answered = torch.randn(n, d_model, generator=generator)
    return torch.randn(n, d_model, generator=generator) + gap * direction, answered, direction
