"""How much of the variance of refusals is explained by strength, and how much by direction."""

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..stats import percentile_interval
from .outcomes import Outcomes


def variance_shares(outcomes: Outcomes, n_draws: int = 500, seed: int = 0) -> pd.DataFrame:
    """Shares of the variance of "refused" that strength explains alone and direction explains given strength.

    Columns: share, low, high. They are variance components of a crossed design with prompts as a random effect. The
    second share averages the component of direction over strengths, corrected for noise. A strength at which a
    direction has no usable point is left out; all numbers are NaN if fewer than two are left, or for a single
    direction. Source: Searle, Casella & McCulloch 1992, ch. 4.
    """
    common = outcomes.usable.all(0)
    refused = outcomes.refused[:, common].double()
    if min(len(refused), int(common.sum())) > 1:
        values = torch.stack([_shares(refused, draw) for draw in outcomes.weights(n_draws, seed)])
    else:
        values = torch.full((n_draws + 1, 2), float("nan"), dtype=torch.float64)
    low, high = percentile_interval(values[1:])
    index = pd.Index(["strength", "direction given strength"], name="explained by")
    return pd.DataFrame({"share": values[0], "low": low, "high": high}, index=index)


def _shares(
    refused: Float[Tensor, "direction coefficient prompt"], weights: Float[Tensor, " prompt"]
) -> Float[Tensor, "2"]:
    n_directions, n = len(refused), weights.sum()
    cells = refused @ (weights / n)
    total = cells.mean() * (1 - cells.mean())
    by_prompt = refused.mean(0)
    residual = refused - cells[..., None] - by_prompt + cells.mean(0)[:, None]
    noise = (residual.square() * weights).sum((0, 2)) / ((n_directions - 1) * (n - 1))
    by_direction = (cells.var(0, correction=1) - noise / n).clamp(min=0).mean()
    strength = cells.mean(0).var(correction=0)
    return torch.stack([strength, by_direction]) / total.clamp(min=1e-12)
