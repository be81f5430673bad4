"""What would a cosine be if there were nothing to find? Null hypotheses for every pair of categories, and for two maps."""

from collections.abc import Mapping
from itertools import combinations

import torch
from jaxtyping import Float, Int
from scipy.stats import false_discovery_control
from torch import Tensor

from ..directions.comparison import off_diagonal
from .contrasts import MIN_PROMPTS, Contrasts, contrasts, cosines, full_counts, inner_products


def pair_contrasts(
    twins: Mapping[str, tuple[Float[Tensor, "_ d_model"], Float[Tensor, "_ d_model"]]],
) -> Contrasts:
    """The differences of twins, refused less benign, as contrasts with nothing: what is dealt or drawn is a whole pair.

    `twins`: by category, the states of refused prompts and, row by row, of their benign twins. The directions are those of the mean differences between twins, so what both of a
    pair have, such as their topic, is in none of them. Raises `ValueError` as `contrasts`.
    """
    differences = {name: own - other for name, (own, other) in twins.items()}
    width = next(iter(differences.values())).shape[1]
    return contrasts(differences, torch.zeros(MIN_PROMPTS, width))


def distinctness_p(sample: Contrasts, n_draws: int = 1000, seed: int = 0) -> Float[Tensor, "category category"]:
    """For each pair, the p-value of "the prompts of these two categories are interchangeable": 1 on the diagonal.

    The refused prompts of both are dealt out anew to two sides of the old sizes, `n_draws` times (pairs of the same sizes
    in the same ways); p is the share of deals whose cosine is as low as the true one's. Not corrected for the number of
    pairs. Whatever tells the two kinds of prompt apart makes p low, their topics included.
    """
    generator = torch.Generator().manual_seed(seed)
    observed = cosines(inner_products(sample, full_counts(sample))[0])
    p_values = torch.ones(len(observed), len(observed))
    deals: dict[tuple[int, int], Tensor] = {}
    for i, j in combinations(range(len(observed)), 2):
        sides = [_rows(sample.refused[place]) for place in (i, j)]
        n, m = map(len, sides)
        if (n, m) not in deals:
            deals[n, m] = (torch.rand(n_draws, n + m, generator=generator).argsort(1) < n).double()
        answered = sample.answered[i], sample.answered[j]
        null = _dealt_cosines(sample.gram, torch.cat(sides), deals[n, m], answered)
        p_values[i, j] = p_values[j, i] = _share_at_most(null, observed[i, j])
    return p_values


def relatedness_p(sample: Contrasts, n_draws: int = 10_000, seed: int = 0) -> Float[Tensor, "category category"]:
    """For each pair, the p-value of "these two are random directions": drawn from the activations' own covariance.

    That is the covariance of all prompts about their common mean, the differences between categories included, which
    makes the test strict: two random directions are far from orthogonal where few axes carry most of the variance. p is
    the share of random pairs whose cosine is as high as the true one. Not corrected for the number of pairs.
    """
    generator = torch.Generator().manual_seed(seed)
    variances = torch.linalg.eigvalsh(sample.gram)  # those of the covariance, up to a factor that no cosine notices
    variances = variances[variances > 1e-12 * variances.max()]
    first, second = torch.randn(2, n_draws, len(variances), generator=generator, dtype=torch.float64)
    random = (first * second) @ variances / ((first**2 @ variances) * (second**2 @ variances)).sqrt()
    observed = cosines(inner_products(sample, full_counts(sample))[0])
    p_values = torch.ones(len(observed), len(observed))
    for i, j in combinations(range(len(observed)), 2):
        p_values[i, j] = p_values[j, i] = _share_at_most(-random, -observed[i, j])
    return p_values


def mantel_p(
    first: Float[Tensor, "category category"],
    second: Float[Tensor, "category category"],
    n_draws: int = 10_000,
    seed: int = 0,
) -> float:
    """The p-value of "these two maps have nothing to do with each other", against maps that correlate.

    The labels of `first` are dealt out anew, `n_draws` times; p is the share of deals whose correlation between the two
    maps' pairs is as high as the true one's. Labels and not pairs are dealt, as pairs that share a category depend on
    each other. `first` is taken to be symmetric; of `second` the part above the diagonal is read. Source: Mantel 1967.
    """
    generator = torch.Generator().manual_seed(seed)
    n = len(first)
    orders = torch.cat([torch.arange(n)[None], torch.rand(n_draws, n, generator=generator).argsort(1)])
    rows, columns = torch.triu_indices(n, n, offset=1)
    fixed = off_diagonal(second.double())
    # Mean and spread of the pairs are the same in every deal, so this product ranks deals as the correlation does.
    products = first.double()[orders[:, rows], orders[:, columns]] @ (fixed - fixed.mean())
    return _share_at_most(-products[1:], 1e-9 - products[0])  # ties are ties, whatever the rounding


def _rows(side: slice) -> Int[Tensor, " prompt"]:
    return torch.arange(side.start, side.stop)


def _dealt_cosines(
    gram: Float[Tensor, "prompt prompt"],
    dealt: Int[Tensor, " refused_prompt"],
    first: Float[Tensor, "draw refused_prompt"],
    answered: tuple[slice, slice],
) -> Float[Tensor, " draw"]:
    """The cosine of two directions after each deal of the rows `dealt`: 1 in `first` puts a row on the first side."""
    own, n = gram[dealt][:, dealt], int(first[0].sum())
    m = len(dealt) - n
    weights = first / n, (1 - first) / m
    met = weights[0] @ own
    met_by = met, (own.sum(0) - n * met) / m  # the second side is what the first leaves
    others = [gram[:, side].mean(1) for side in answered]  # with the mean of the answered prompts

    def product(a: int, b: int) -> Tensor:
        crossed = weights[a] @ others[b][dealt] + weights[b] @ others[a][dealt]
        return (met_by[a] * weights[b]).sum(1) - crossed + others[b][answered[a]].mean()

    return product(0, 1) / (product(0, 0) * product(1, 1)).clamp(min=1e-30).sqrt()


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
