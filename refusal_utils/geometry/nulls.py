"""Null hypotheses: what a cosine, or the correlation of two maps, would be if there were nothing to find."""

from itertools import combinations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..directions.comparison import off_diagonal
from .gram import Contrasts

DISCOVERY = 0.05  # accepted rate of false discoveries among the pairs


def distinctness_p(sample: Contrasts, n_draws: int = 1000, seed: int = 0) -> Float[Tensor, " pair"]:
    """For each pair, the p-value of "the prompts of these two categories are interchangeable".

    The refused prompts of both are shuffled into two sides of the same sizes, `n_draws` times; p is the share of
    shuffles whose cosine is as low as the observed one. It is not corrected for the number of pairs. Anything that
    distinguishes the two kinds of prompt makes p low, including their topics.
    """
    generator = torch.Generator().manual_seed(seed)
    p_values: list[float] = []
    deals: dict[tuple[int, int], Tensor] = {}
    pairs = combinations(range(len(sample.categories)), 2)
    for (i, j), observed in zip(pairs, off_diagonal(sample.cosines), strict=True):
        sides = [torch.arange(side.start, side.stop) for side in (sample.refused[i], sample.refused[j])]
        n, m = map(len, sides)
        if (n, m) not in deals:  # pairs of the same sizes share their shuffles
            deals[n, m] = (torch.rand(n_draws, n + m, generator=generator).argsort(1) < n).double()
        answered = sample.answered[i], sample.answered[j]
        null = _dealt_cosines(sample.gram, torch.cat(sides), deals[n, m], answered)
        p_values.append(_share_at_most(null, observed))
    return torch.tensor(p_values)


def relatedness_p(sample: Contrasts, n_draws: int = 10_000, seed: int = 0) -> Float[Tensor, " pair"]:
    """For each pair, the p-value of "these two are random directions with the covariance of the activations".

    The covariance is that of all prompts about their common mean and so includes the differences between categories.
    That makes the test strict: random directions are far from orthogonal if a few axes carry most of the variance. p is
    the share of random pairs whose cosine is as high as the observed one, not corrected for the number of pairs.
    """
    generator = torch.Generator().manual_seed(seed)
    variances = torch.linalg.eigvalsh(sample.gram)  # those of the covariance up to a factor, which cosines ignore
    variances = variances[variances > 1e-12 * variances.max()]
    first, second = torch.randn(2, n_draws, len(variances), generator=generator, dtype=torch.float64)
    random = (first * second) @ variances / ((first**2 @ variances) * (second**2 @ variances)).sqrt()
    return torch.tensor([_share_at_most(-random, -observed) for observed in off_diagonal(sample.cosines)])


def mantel_p(
    first: Float[Tensor, "category category"],
    second: Float[Tensor, "category category"],
    n_draws: int = 10_000,
    seed: int = 0,
) -> float:
    """The p-value of "these two maps are unrelated", against the alternative that they correlate.

    The labels of `first` are shuffled `n_draws` times; p is the share of shuffles in which the pairs of the two maps
    correlate as highly as observed. Labels are shuffled rather than pairs, because pairs that share a category depend
    on each other. `first` must be symmetric; only the part of `second` above the diagonal is read. Source: Mantel 1967.
    """
    found = shuffled_correlations(first, second, n_draws, seed)
    return _share_at_most(-found[1:], 1e-9 - found[0])  # the tolerance keeps ties despite rounding


def shuffled_correlations(
    first: Float[Tensor, "category category"],
    second: Float[Tensor, "category category"],
    n_draws: int = 10_000,
    seed: int = 0,
) -> Float[Tensor, " draw"]:
    """The correlation over the pairs of two maps, as observed and then after each shuffle of `mantel_p`."""
    generator = torch.Generator().manual_seed(seed)
    n = len(first)
    orders = torch.cat([torch.arange(n)[None], torch.rand(n_draws, n, generator=generator).argsort(1)])
    rows, columns = torch.triu_indices(n, n, offset=1)
    fixed, own = (off_diagonal(each.double()) for each in (second, first))
    # Mean and spread of the pairs are the same in every shuffle.
    products = first.double()[orders[:, rows], orders[:, columns]] @ (fixed - fixed.mean())
    return products / (len(own) * own.std(correction=0) * fixed.std(correction=0))


def _dealt_cosines(
    gram: Float[Tensor, "prompt prompt"],
    dealt: Int[Tensor, " refused_prompt"],
    first: Float[Tensor, "draw refused_prompt"],
    answered: tuple[slice, slice],
) -> Float[Tensor, " draw"]:
    """The cosine of two directions after each shuffle of the rows `dealt`; `first` is 1 for rows on the first side."""
    own, n = gram[dealt][:, dealt], int(first[0].sum())
    m = len(dealt) - n
    weights = first / n, (1 - first) / m
    met = weights[0] @ own
    met_by = met, (own.sum(0) - n * met) / m  # the second side has all other rows
    others = [gram[:, side].mean(1) for side in answered]  # with the mean of the answered prompts

    def product(a: int, b: int) -> Tensor:
        crossed = weights[a] @ others[b][dealt] + weights[b] @ others[a][dealt]
        return (met_by[a] * weights[b]).sum(1) - crossed + others[b][answered[a]].mean()

    return product(0, 1) / (product(0, 0) * product(1, 1)).clamp(min=1e-30).sqrt()


def _share_at_most(null: Float[Tensor, " draw"], observed: Float[Tensor, ""]) -> float:
    return float((1 + (null <= observed).sum()) / (1 + len(null)))
