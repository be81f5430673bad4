"""The statistics that every analysis shares: one bootstrap, one interval for a rate, one correction for many tests."""

from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import binomtest, false_discovery_control
from torch import Tensor


@cache
def wilson(successes: int, n: int) -> tuple[float, float]:
    """(low, high) of Wilson's 95 % interval for the rate `successes / n` (scipy's implementation).

    >>> low, high = wilson(9, 10)
    >>> round(low, 2), round(high, 2)
    (0.6, 0.98)
    """
    interval = binomtest(int(successes), int(n)).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_counts(strata: Int[Tensor, " prompt"], n_draws: int, seed: int = 0) -> Float[Tensor, "draw prompt"]:
    """How often each prompt is drawn if every stratum is resampled with replacement to its own size.

    `strata` is the group number of each prompt. Groups are sets of prompts whose sizes were fixed in advance, such
    as the two sides of a contrast or the four buckets of a controlled set.
    """
    generator = torch.Generator().manual_seed(seed)
    counts = torch.zeros(n_draws, len(strata), dtype=torch.float64)
    for stratum in strata.unique():
        rows = (strata == stratum).nonzero()[:, 0]
        drawn = rows[torch.randint(len(rows), (n_draws, len(rows)), generator=generator)]
        counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    return counts


def percentile_interval(
    draws: Float[Tensor, " draw *category"], level: float = 0.95
) -> tuple[Float[Tensor, "*category"], Float[Tensor, "*category"]]:
    """(low, high) of the central interval that contains `level` of the draws; NaN draws are ignored."""
    low, high = (draws.nanquantile(share, dim=0) for share in ((1 - level) / 2, (1 + level) / 2))
    return low, high


def adjust_p(p_values: Float[Tensor, "*pair"]) -> Float[Tensor, "*pair"]:
    """The p-values, adjusted for the number of tests, so that a threshold controls the false discovery rate.

    NaN marks a test that was not run. Source: Benjamini & Hochberg 1995 (scipy's implementation).
    """
    flat = p_values.flatten().double().numpy()
    made = ~np.isnan(flat)
    adjusted = flat.copy()
    if made.any():
        adjusted[made] = false_discovery_control(flat[made])
    return torch.from_numpy(adjusted).to(p_values.dtype).view(p_values.shape)
