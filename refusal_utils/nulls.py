"""What would a cosine be if there were nothing to find? Null hypotheses for every pair of categories."""

from itertools import combinations

import torch
from jaxtyping import Float, Int
from scipy.stats import false_discovery_control
from torch import Tensor

from .directions import off_diagonal
from .geometry import Contrasts, cosines, full_counts, inner_products


def distinctness_p(sample: Contrasts, n_draws: int = 1000, seed: int = 0) -> Float[Tensor, "category category"]:
    """For each pair, the p-value of "these two categories have the same direction": 1 on the diagonal.

    The refused prompts of both are dealt out anew to two sides of the old sizes, `n_draws` times; p is the share of
    deals whose cosine is as low as the true one's. Not corrected for the number of pairs.
    """
    generator = torch.Generator().manual_seed(seed)
    observed = cosines(inner_products(sample, full_counts(sample))[0])
    p_values = torch.ones(len(observed), len(observed))
    sides = [_rows(side) for side in (*sample.refused, *sample.answered)]
    for i, j in combinations(range(len(observed)), 2):
        first, second, *answered = (sides[place] for place in (i, j, i + len(observed), j + len(observed)))
        dealt, n = torch.cat([first, second]), len(first)
        block = torch.cat([dealt, *answered]).unique()  # only these rows of the Gram matrix matter
        order = torch.searchsorted(block, dealt)[torch.rand(n_draws, len(dealt), generator=generator).argsort(1)]
        weights = []
        for part, other in zip((order[:, :n], order[:, n:]), answered, strict=True):
            weight = torch.zeros(n_draws, len(block), dtype=torch.float64).scatter_(1, part, 1 / part.shape[1])
            weight[:, torch.searchsorted(block, other)] -= 1 / len(other)
            weights.append(weight)
        null = _row_cosines(sample.gram[block][:, block], *weights)
        p_values[i, j] = p_values[j, i] = _share_at_most(null, observed[i, j])
    return p_values


def relatedness_p(sample: Contrasts, n_draws: int = 10_000, seed: int = 0) -> Float[Tensor, "category category"]:
    """For each pair, the p-value of "these two are random directions": drawn from the activations' own covariance.

    Two such directions are far from orthogonal where few axes carry most of the variance. p is the share of random
    pairs whose cosine is as high as the true one. Not corrected for the number of pairs.
    """
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, n_draws, sample.n_prompts, generator=generator, dtype=torch.float64)
    random = _row_cosines(sample.gram, first - first.mean(1, keepdim=True), second - second.mean(1, keepdim=True))
    observed = cosines(inner_products(sample, full_counts(sample))[0])
    p_values = torch.ones(len(observed), len(observed))
    for i, j in combinations(range(len(observed)), 2):
        p_values[i, j] = p_values[j, i] = _share_at_most(-random, -observed[i, j])
    return p_values


def _rows(side: slice) -> Int[Tensor, " prompt"]:
    return torch.arange(side.start, side.stop)


def _row_cosines(
    gram: Float[Tensor, "prompt prompt"], first: Float[Tensor, "draw prompt"], second: Float[Tensor, "draw prompt"]
) -> Float[Tensor, " draw"]:
    left, right = first @ gram, second @ gram
    lengths = (left * first).sum(1) * (right * second).sum(1)
    return (left * second).sum(1) / lengths.clamp(min=1e-30).sqrt()


def _share_at_most(null: Float[Tensor, " draw"], observed: Float[Tensor, ""]) -> float:
    return float((1 + (null <= observed).sum()) / (1 + len(null)))


def adjust_p(p_values: Float[Tensor, "category category"]) -> Float[Tensor, "category category"]:
    """The p-values of all unordered pairs, adjusted so that the rate of false discoveries among them is controlled.

    Source: Benjamini & Hochberg 1995, as implemented in scipy. The diagonal stays 1.
    """
    rows, columns = torch.triu_indices(len(p_values), len(p_values), offset=1)
    adjusted = torch.ones_like(p_values)
    adjusted[rows, columns] = torch.as_tensor(
        false_discovery_control(off_diagonal(p_values).numpy()), dtype=p_values.dtype
    )
    adjusted[columns, rows] = adjusted[rows, columns]
    return adjusted
