"""What a component contributes to a refusal direction, and how certain that is. Statistics only; no model is run.

A contribution is the mean share over the refused prompts minus the mean over the answered ones. The contributions of
all components sum to the gap between the two means along the direction.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import ttest_ind_from_stats
from torch import Tensor

from ..checks import require
from ..prompts.categories import BENIGN
from ..stats import adjust_p, bootstrap_counts, percentile_interval


def contributions(
    refused: Float[Tensor, " refused_prompt *component"], answered: Float[Tensor, " answered_prompt *component"]
) -> Float[Tensor, "*component"]:
    """mean(refused) - mean(answered) of every component's share. Raises `ValueError` for fewer than 4 prompts."""
    for name, side in (("refused", refused), ("answered", answered)):
        require(len(side) >= 4, "contributions", f"there must be at least 4 {name} prompts", len(side), "Add prompts.")
    return (refused.double().mean(0) - answered.double().mean(0)).float()


def contribution_intervals(
    refused: Float[Tensor, " refused_prompt *component"],
    answered: Float[Tensor, " answered_prompt *component"],
    n_draws: int = 1000,
    seed: int = 0,
) -> Float[Tensor, " 2 *component"]:
    """Low and high end of every contribution's 95 % interval, from a bootstrap that resamples both sides' prompts.

    Basic (pivotal) intervals: Efron & Tibshirani 1993, chapter 13.
    """
    sides = torch.tensor([0] * len(refused) + [1] * len(answered))
    counts = bootstrap_counts(sides, n_draws, seed)
    means = [
        counts[:, sides == side] @ own.double().flatten(1) / len(own) for side, own in enumerate((refused, answered))
    ]
    low, high = percentile_interval(means[0] - means[1])
    twice = 2 * contributions(refused, answered).double()
    return torch.stack([twice - end.view(twice.shape) for end in (high, low)]).float()


def contribution_p(
    refused: Float[Tensor, " refused_prompt *component"], answered: Float[Tensor, " answered_prompt *component"]
) -> Float[Tensor, "*component"]:
    """p-values of "this component contributes nothing", adjusted over all components (`stats.adjust_p`).

    Welch's t-test, because a head's shares vary more over some prompts than over others.
    """
    stats = []
    for side in (refused, answered):
        values = side.double().flatten(1)
        stats += [values.mean(0).numpy(), values.std(0, correction=1).clamp(min=1e-12).numpy(), len(values)]
    p_values = torch.from_numpy(ttest_ind_from_stats(*stats, equal_var=False).pvalue)
    return adjust_p(p_values).float().view(refused.shape[1:])


def per_category(
    statistic: Callable[..., Float[Tensor, "*kept"]],
    shares: Float[Tensor, "prompt *component category"],
    labels: Sequence[str],
    categories: Sequence[str],
) -> Float[Tensor, "*kept category"]:
    """`statistic(refused, answered)` of each category's own column of `shares`, stacked along the last axis.

    `labels` gives each prompt's category or "benign". The refused prompts are those of the column's category, the
    answered ones the benign prompts. Raises `ValueError` unless there is a column per category and a label per prompt.
    """
    named = np.asarray(labels)
    fits = shares.shape[-1] == len(categories) and len(named) == len(shares)
    must, todo = "shares must have one row per label and one column per category", "Take them along these directions."
    got = f"shape {tuple(shares.shape)} for {len(named)} labels and {len(categories)} categories"
    require(fits, "per_category", must, got, todo)
    benign = shares[torch.from_numpy(named == BENIGN)]
    sides = ((shares[torch.from_numpy(named == name), ..., c], benign[..., c]) for c, name in enumerate(categories))
    return torch.stack([statistic(*pair) for pair in sides], dim=-1)
