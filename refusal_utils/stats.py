"""The statistics that every analysis shares: one bootstrap, one interval for a rate, one correction for many tests."""

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import binomtest, false_discovery_control
from torch import Tensor


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """(low, high) of Wilson's interval for the rate `successes / n` (scipy's implementation).

    >>> low, high = wilson(9, 10)
    >>> round(low, 2), round(high, 2)
    (0.6, 0.98)
    """
    interval = binomtest(int(successes), int(n)).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_counts(strata: Int[Tensor, " prompt"], n_draws: int, seed: int = 0) -> Float[Tensor, "draw prompt"]:
    """How often each prompt is drawn when every stratum is resampled with replacement to its own size.

    `strata` numbers the groups whose sizes were fixed when the prompts were chosen, such as the two sides of a contrast
    or the four buckets of a controlled set.
    """
    generator = torch.Generator().manual_seed(seed)
    counts = torch.zeros(n_draws, len(strata), dtype=torch.float64)
    for stratum in strata.unique():
        rows = (strata == stratum).nonzero()[:, 0]
        drawn = rows[torch.randint(len(rows), (n_draws, len(rows)), generator=generator)]
        counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    return counts


def percentile_interval(
    draws: Float[Tensor, "draw *axes"], level: float = 0.95
) -> tuple[Float[Tensor, "*axes"], Float[Tensor, "*axes"]]:
    """(low, high): the central interval that holds `level` of the draws, NaN draws left out."""
    low, high = ((1 - level) / 2, (1 + level) / 2)
    return draws.nanquantile(low, dim=0), draws.nanquantile(high, dim=0)


def adjust_p(p_values: Float[Tensor, "*tests"]) -> Float[Tensor, "*tests"]:
    """p-values adjusted over all tests given, so that the false discovery rate is controlled.

    Source: Benjamini & Hochberg 1995 (scipy's implementation). NaN stands for a test that was not made.
    """
    flat = p_values.flatten().double().numpy()
    made = ~np.isnan(flat)
    adjusted = flat.copy()
    if made.any():
        adjusted[made] = false_discovery_control(flat[made])
    return torch.from_numpy(adjusted).to(p_values.dtype).view(p_values.shape)
