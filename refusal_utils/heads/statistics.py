"""How sure to be of a head: intervals, significance, overlap and concentration of shares. Pure statistics.

A contribution is the mean share over refused prompts less that over answered ones, of one component to one category's
direction. Contributions of all components sum to the gap between the two means along that direction.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import false_discovery_control, rankdata, ttest_ind_from_stats
from torch import Tensor

from ..prompts.categories import BENIGN, CATEGORY_IDS

Statistic = Callable[
    [Float[Tensor, "refused_prompt *component"], Float[Tensor, "answered_prompt *component"]], Float[Tensor, "*kept"]
]


def contributions(
    refused: Float[Tensor, "refused_prompt *component"], answered: Float[Tensor, "answered_prompt *component"]
) -> Float[Tensor, "*component"]:
    """mean(refused) - mean(answered) of the shares of every component. Raises `ValueError` for fewer than 4 prompts."""
    for name, side in (("refused", refused), ("answered", answered)):
        if len(side) < 4:
            raise ValueError(f"contributions: at least 4 {name} prompts; got {len(side)}. Add prompts.")
    return (refused.double().mean(0) - answered.double().mean(0)).float()


def contribution_intervals(
    refused: Float[Tensor, "refused_prompt *component"],
    answered: Float[Tensor, "answered_prompt *component"],
    n_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[Float[Tensor, "*component"], Float[Tensor, "*component"]]:
    """(low, high) of every contribution: a bootstrap that resamples prompts on both sides, the same for all components.

    Basic (pivotal) intervals, Efron & Tibshirani 1993, ch. 13.
    """
    generator = torch.Generator().manual_seed(seed)
    means = []
    for side in (refused, answered):
        drawn = torch.randint(len(side), (n_draws, len(side)), generator=generator)
        counts = torch.zeros(n_draws, len(side)).scatter_add_(1, drawn, torch.ones(drawn.shape))
        means.append(counts @ side.float().flatten(1) / len(side))
    moved = means[0] - means[1]
    whole = contributions(refused, answered)
    low, high = (2 * whole.flatten() - moved.quantile(q, dim=0) for q in ((1 + level) / 2, (1 - level) / 2))
    return low.view(whole.shape), high.view(whole.shape)


def contribution_p(
    refused: Float[Tensor, "refused_prompt *component"], answered: Float[Tensor, "answered_prompt *component"]
) -> Float[Tensor, "*component"]:
    """p-values of "this component contributes nothing", adjusted over all components given (Benjamini & Hochberg 1995).

    Welch's t-test, as implemented in scipy: shares of a head differ in spread between refused and answered prompts.
    """
    stats = []
    for side in (refused, answered):
        values = side.double().flatten(1)
        stats += [values.mean(0).numpy(), values.std(0, correction=1).clamp(min=1e-12).numpy(), len(values)]
    p = ttest_ind_from_stats(*stats, equal_var=False).pvalue
    return torch.from_numpy(false_discovery_control(p)).float().view(refused.shape[1:])


def per_category(
    statistic: Statistic,
    shares: Float[Tensor, "prompt *component category"],
    labels: Iterable[str],
) -> Float[Tensor, "*kept category"]:
    """`statistic(refused, benign)` of each category's own column of `shares`, stacked along the last axis.

    `labels` names each prompt's category, or benign; refused are the prompts of the column's category. Raises
    `ValueError` unless there is one column per category and one label per prompt.
    """
    named = np.asarray(list(labels))
    if shares.shape[-1] != len(CATEGORY_IDS) or len(named) != len(shares):
        raise ValueError(
            f"per_category: shares must hold one column per category and one row per label; got {tuple(shares.shape)} "
            f"for {len(CATEGORY_IDS)} categories and {len(named)} labels. Pass shares along the eleven directions."
        )
    rows = {name: torch.from_numpy(named == name) for name in (*CATEGORY_IDS, BENIGN)}
    columns = [(shares[rows[name], ..., c], shares[rows[BENIGN], ..., c]) for c, name in enumerate(CATEGORY_IDS)]
    return torch.stack([statistic(*sides) for sides in columns], dim=-1)


def top_heads(contribution: Float[Tensor, "layer head_index"], k: int) -> Int[Tensor, "component 2"]:
    """(layer, head_index) of the `k` heads with the largest contribution (all, where there are fewer), largest first.

    Raises `ValueError` for a `k` below 1.
    """
    if k < 1:
        raise ValueError(f"top_heads: at least 1 head; got {k}. Ask for 1 or more.")
    order = contribution.flatten().argsort(descending=True)[:k]
    return torch.stack([order // contribution.shape[1], order % contribution.shape[1]], dim=1)


def top_by_category(
    contribution: Float[Tensor, "layer head_index category"], k: int
) -> dict[str, list[tuple[int, int]]]:
    """(layer, head_index) of the `k` heads that contribute most to each category's direction, largest first."""
    found = {name: top_heads(contribution[..., c], k).tolist() for c, name in enumerate(CATEGORY_IDS)}
    return {name: [(layer, head) for layer, head in own] for name, own in found.items()}


def top_table(numbers: Mapping[str, Float[Tensor, "layer head_index category"]], k: int) -> pd.DataFrame:
    """The top `k` heads of every category by the first of `numbers`, and what all of `numbers` say of them.

    Rows (category, rank from 0); columns layer, head, and one per number, in its own unit.
    """
    chosen = top_by_category(next(iter(numbers.values())), k)
    places = [(c, *head) for c, own in enumerate(chosen.values()) for head in own]
    names = pd.MultiIndex.from_product([chosen, range(len(places) // len(chosen))], names=["category", "rank"])
    category, layer, head = (list(each) for each in zip(*places, strict=True))
    own_numbers = {name: values[layer, head, category].numpy() for name, values in numbers.items()}
    return pd.DataFrame({"layer": layer, "head": head} | own_numbers, index=names)


def is_top(contribution: Float[Tensor, "layer head_index category"], k: int) -> Bool[Tensor, "component category"]:
    """Which heads (layers and heads flattened into components) are among each category's `k` largest.

    Raises `ValueError` for a `k` that is not between 1 and the number of heads.
    """
    flat = contribution.flatten(0, 1)
    if not 1 <= k <= len(flat):
        raise ValueError(
            f"is_top: the top heads must be 1 to {len(flat)} of the heads; got {k}. Choose a number of these."
        )
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    return chosen.scatter(0, flat.argsort(0, descending=True)[:k], True)


def overlap(contribution: Float[Tensor, "layer head_index category"], k: int) -> Float[Tensor, "category category"]:
    """Jaccard overlap of every two categories' top `k` heads: shared heads over heads in either."""
    chosen = is_top(contribution, k).double()
    shared = chosen.T @ chosen
    return (shared / (2 * k - shared)).float()


def overlap_null(
    contribution: Float[Tensor, "layer head_index category"], k: int, n_draws: int = 1000, seed: int = 0
) -> Float[Tensor, " draw"]:
    """The mean overlap of all pairs when every category's heads are dealt out anew within their layer.

    Matched: late layers write more for every category, so heads of the same layers overlap without being the same.
    """
    generator = torch.Generator().manual_seed(seed)
    n_layers, n_heads, n_categories = contribution.shape
    chosen = is_top(contribution, k).view(n_layers, n_heads, n_categories)
    order = torch.rand(n_draws, n_layers, n_heads, n_categories, generator=generator).argsort(2)
    dealt = torch.gather(chosen.expand(n_draws, -1, -1, -1), 2, order).flatten(1, 2).double()
    shared = dealt.transpose(1, 2) @ dealt
    rows, columns = torch.triu_indices(n_categories, n_categories, offset=1)
    return (shared / (2 * k - shared))[:, rows, columns].mean(1).float()


def concentration(
    contribution: Float[Tensor, "layer head_index category"], sizes: tuple[int, ...] = (1, 3, 10)
) -> pd.DataFrame:
    """The share of each category's positive head contributions that its top heads carry: rows sizes, columns categories.

    The columns are numbered as the categories were given.
    """
    positive = contribution.flatten(0, 1).clamp(min=0).sort(dim=0, descending=True).values
    carried = positive.cumsum(0) / positive.sum(0).clamp(min=1e-12)
    sizes = tuple(size for size in sizes if size <= len(carried))
    return pd.DataFrame(carried[np.array(sizes) - 1].numpy(), index=pd.Index(sizes, name="top heads"))


def rank_test(single: pd.DataFrame, n_draws: int = 1000, seed: int = 0) -> pd.Series:
    """Spearman's correlation `rho` of attribution and effect over (head, category) pairs, and what chance gives.

    `single` has columns category, layer, head, attribution and effect, a row per pair. The null deals the effects of
    whole heads out anew within their layers: one head's numbers are not independent, and layers differ as a whole.
    `null`: its mean; `null high`: 95 % lie below; `p`: the share of deals with as large a correlation (one-sided).
    Raises `ValueError` where a head has no row for a category.
    """
    wide = single.pivot(index=["layer", "head"], columns="category", values=["attribution", "effect"])
    if wide.isna().to_numpy().any():
        raise ValueError(
            f"rank_test: every head must have a row for every category; got {len(single)} rows for {len(wide)} heads. "
            "Measure them all."
        )
    ranks = {name: rankdata(wide[name].to_numpy().ravel()) for name in ("attribution", "effect")}
    shares, effects = ranks["attribution"], ranks["effect"].reshape(len(wide), -1)
    layers = wide.index.get_level_values("layer").to_numpy()
    rho = float(np.corrcoef(shares, effects.ravel())[0, 1])
    generator, by_layer = np.random.default_rng(seed), np.argsort(layers, kind="stable")
    null = np.empty(n_draws)
    for number in range(n_draws):
        dealt = np.empty_like(by_layer)
        dealt[by_layer] = np.lexsort((generator.random(len(layers)), layers))
        null[number] = np.corrcoef(shares, effects[dealt].ravel())[0, 1]
    p = (1 + (null >= rho - 1e-12).sum()) / (1 + n_draws)
    return pd.Series({"rho": rho, "null": null.mean(), "null high": np.quantile(null, 0.95), "p": p})


def mean_changes(before: pd.DataFrame, after: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """How far each column's mean is from `before`, prompt by prompt, with 95 % normal intervals: change, low, high.

    Rows (name in `after`, column), in the columns' units. All frames hold one row per prompt, the same ones in the same
    order; a prompt that is NaN in a column does not count there. Raises `ValueError` for a frame of another shape.
    """
    rows: dict[tuple[str, str], tuple[float, float, float]] = {}
    for name, frame in after.items():
        if frame.shape != before.shape:
            raise ValueError(
                f"mean_changes: all frames must hold the same prompts and columns; got {frame.shape} in {name} for "
                f"{before.shape}. Measure the same prompts."
            )
        change = frame - before
        error = 1.96 * change.std() / change.count() ** 0.5
        rows |= {
            (name, column): (mean, mean - error[column], mean + error[column]) for column, mean in change.mean().items()
        }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["change", "low", "high"]).set_axis(
        pd.MultiIndex.from_tuples(rows, names=["heads", "of"])
    )
