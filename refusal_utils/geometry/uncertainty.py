"""How certain a cosine between two estimated directions is: noise correction, intervals, subsets of prompts.

A cosine between *estimated* directions is biased. Noise makes both directions too long, which pulls the cosine
towards zero. If both are measured against the same answered prompts, they share the noise of those, which pulls it up.
Both biases are known functions of the within-side variances and are subtracted here (`corrected`).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import require
from ..stats import bootstrap_counts, percentile_interval
from .gram import Contrasts, cosines, inner_products, noise_products

DRAWS_AT_ONCE = 250  # bounds memory; results do not depend on it


@dataclass(frozen=True, eq=False)
class CosineIntervals:
    """Cosines between the directions of all pairs of categories, and how certain they are.

    `raw` is the plain cosine. `corrected` estimates the cosine between the directions of infinitely many prompts, and
    `low` to `high` is its 95 % interval.
    """

    raw: Float[Tensor, "category category"]
    corrected: Float[Tensor, "category category"]
    low: Float[Tensor, "category category"]
    high: Float[Tensor, "category category"]


def cosine_intervals(sample: Contrasts, n_draws: int = 1000, seed: int = 0) -> CosineIntervals:
    """The cosines of all pairs, raw and corrected for sampling noise, with a bootstrap interval for the corrected ones.

    The interval is pivotal on Fisher's z scale; every draw resamples every side once for all categories. In the
    bootstrap the directions of the data, noise included, are the truth, so the corrected cosine of a draw is compared
    with the raw one. Those directions are too long by 1/reliability, and deviations are stretched accordingly.
    Source: Efron & Tibshirani 1993, ch. 13; correction for attenuation: Spearman 1904.
    """
    raw, corrected, share = sample.cosines, _corrected(sample, sample.every_prompt)[0], reliability(sample)
    drawn = bootstrap_counts(sample.strata, n_draws, seed).split(DRAWS_AT_ONCE)
    moved = torch.cat([_corrected(sample, counts) for counts in drawn])
    stretch = (share[:, None] * share[None, :]).clamp(min=1e-3) ** -0.5
    below, above = percentile_interval((_z(moved) - _z(raw)) * stretch)
    low, high = (torch.tanh(_z(corrected) - deviation) for deviation in (above, below))
    return CosineIntervals(*(each.clone().fill_diagonal_(1.0).float() for each in (raw, corrected, low, high)))


def reliability(sample: Contrasts) -> Float[Tensor, " category"]:
    """The share of each direction's squared length that is not sampling noise: at most 1; pure noise gives about 0.

    It is the square of the highest cosine that the direction can be expected to have with the true one.
    """
    squared = inner_products(sample, sample.every_prompt)[0].diagonal()
    return 1 - noise_products(sample, sample.every_prompt)[0].diagonal() / squared


def _corrected(sample: Contrasts, counts: Float[Tensor, "draw prompt"]) -> Float[Tensor, "draw category category"]:
    return cosines(inner_products(sample, counts) - noise_products(sample, counts))


def _z(cosine: Tensor) -> Tensor:
    return torch.atanh(cosine.clamp(-0.9999, 0.9999))


def subset_counts(
    sample: Contrasts, n: int, n_draws: int, seed: int = 0, part: int = 0
) -> Float[Tensor, "draw prompt"]:
    """1 for the `n` prompts of each side that a draw without replacement takes, else 0.

    With the same seed, parts 0, 1, 2, ... are disjoint in every draw. Raises `ValueError` if a side is too small.
    """
    generator = torch.Generator().manual_seed(seed)
    counts = torch.zeros(n_draws, len(sample.gram), dtype=torch.float64)
    for side in sample.sides:
        size, needed = side.stop - side.start, (part + 1) * n
        require(needed <= size, "subset_counts", f"{needed} prompts are needed on every side", size, "Draw fewer.")
        order = torch.rand(n_draws, size, generator=generator).argsort(1)[:, needed - n : needed]
        counts[:, side].scatter_(1, order, 1.0)
    return counts


def subset_cosines(
    sample: Contrasts, n: int, n_draws: int = 100, seed: int = 0, against: Literal["all", "disjoint"] = "all"
) -> Float[Tensor, "draw category category"]:
    """The cosine of each category's direction from `n` prompts a side (row) with another estimate of every direction.

    `against` "all": the directions of all prompts (mini-bucket against oracle, Joad et al. 2602.02132, Appendix D);
    "disjoint": the directions of `n` other prompts a side (Table 8). Raises `ValueError` if a side is too small.
    """
    few = subset_counts(sample, n, n_draws, seed)
    other = sample.every_prompt if against == "all" else subset_counts(sample, n, n_draws, seed, 1)
    lengths = [inner_products(sample, counts).diagonal(dim1=1, dim2=2).sqrt() for counts in (few, other)]
    across = inner_products(sample, few, other.expand(n_draws, -1))
    return (across / (lengths[0][:, :, None] * lengths[1][:, None, :])).float()
