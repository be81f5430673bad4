"""Activations whose true directions, cosines and noise are known, for the tests of this folder."""

import torch

TRUE = torch.tensor([[1.0, 0.5, 0.2], [0.5, 1.0, -0.1], [0.2, -0.1, 1.0]])
NAMES = ("first", "second", "third")
WIDTH, N = 60, 80


def planted(seed, n=32, d_model=64, gap=4.5, true=TRUE, shared=True):
    """(refused, answered) of three categories whose true differences have length `gap` and cosines `true`."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(d_model, len(true), generator=generator))[0].T
    means = gap * torch.linalg.cholesky(true) @ axes
    refused = {
        name: torch.randn(n, d_model, generator=generator) + mean for name, mean in zip(NAMES, means, strict=False)
    }
    if shared:
        return refused, torch.randn(n, d_model, generator=generator)
    return refused, {name: torch.randn(n, d_model, generator=generator) for name in refused}


def four_categories(seed=0, names=("one", "same", "apart", "opposite")):
    """Two categories share a direction, one is orthogonal to it, one points against it; length 4, unit noise."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.eye(WIDTH)[:2] * 4
    means = dict(zip(names, (axes[0], axes[0], axes[1], -axes[0]), strict=True))
    refused = {name: torch.randn(N, WIDTH, generator=generator) + mean for name, mean in means.items()}
    return refused, torch.randn(N, WIDTH, generator=generator)


def buckets(seed, n=24, d_model=48, harm=3.0, refusal=2.0):
    """HR, HC, BR, BC with one axis for harmful and another for refused, unit noise."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.eye(d_model)
    centres = {
        "HR": harm * axes[0] + refusal * axes[1],
        "HC": harm * axes[0],
        "BR": refusal * axes[1],
        "BC": 0 * axes[0],
    }
    return {name: torch.randn(n, d_model, generator=generator) + centre for name, centre in centres.items()}
