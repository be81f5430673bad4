"""How sure to be of a cosine between two refusal directions: resampling, correction for noise, intervals.

One idea carries the module. A difference in means is a weighting of prompts, +1/n on each refused and -1/m on each
answered one, so every bootstrap draw, subset or permutation is another weighting of the same prompts, and every inner
product of two directions is w G v with the one Gram matrix G of the prompts, whatever d_model is.

A cosine between *estimated* directions is biased. Noise makes both directions too long, which pulls the cosine to
zero; and when both are measured against the same answered prompts, the noise of those stands in both, which pulls it
up. Both biases are known functions of the within-side variances, and are taken off here (`corrected`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

MIN_PROMPTS = 4


@dataclass(frozen=True, eq=False)
class Contrasts:
    """Refused against answered prompts of several categories, as the Gram matrix of all prompts.

    `gram` holds the inner products of the activations, less their common mean, in float64. `refused` and `answered`
    give each category's rows; categories measured against the same answered prompts have the same rows there.
    """

    gram: Float[Tensor, "prompt prompt"] = field(repr=False)
    categories: tuple[str, ...]
    refused: tuple[slice, ...]
    answered: tuple[slice, ...]

    @property
    def sides(self) -> list[slice]:
        """Every side once: the sets of prompts that are resampled on their own."""
        every = [*self.refused, *self.answered]
        return [side for index, side in enumerate(every) if side not in every[:index]]

    @property
    def signs(self) -> Float[Tensor, "category side"]:
        """1 where a side holds the category's refused prompts, -1 where its answered ones, else 0."""
        signs = torch.zeros(len(self.categories), len(self.sides), dtype=torch.float64)
        for row, (refused, answered) in enumerate(zip(self.refused, self.answered, strict=True)):
            signs[row, self.sides.index(refused)] = 1
            signs[row, self.sides.index(answered)] = -1
        return signs

    @property
    def n_prompts(self) -> int:
        """How many prompts there are, each counted once."""
        return len(self.gram)


@dataclass(frozen=True, eq=False)
class CosineIntervals:
    """Cosines between the directions of all pairs of categories, and how sure to be of them.

    `raw` is the plain cosine. `corrected` estimates the cosine between the directions of infinitely many prompts, and
    `low` to `high` is its interval. `reliability` is the share of each direction's squared length that is not noise,
    the square of the highest cosine to the true direction one can expect.
    """

    raw: Float[Tensor, "category category"]
    corrected: Float[Tensor, "category category"]
    low: Float[Tensor, "category category"]
    high: Float[Tensor, "category category"]
    reliability: Float[Tensor, " category"]


def contrasts(
    refused: Mapping[str, Float[Tensor, "_ d_model"]],
    answered: Float[Tensor, "answered_prompt d_model"] | Mapping[str, Float[Tensor, "_ d_model"]],
) -> Contrasts:
    """The contrasts of each category in `refused` with `answered`: one set for all, or one per category.

    Raises `ValueError` for fewer than 4 prompts on a side, values that are not finite (side and prompt named), a
    category without an answered side, and a category whose two sides are the same.
    """
    _require(
        "contrasts", bool(refused), "there must be at least one category", "none", "Check the filter that chose them."
    )
    others = _answered_sides(refused, answered)
    sides = {f"refused {name}": values for name, values in refused.items()} | others
    rows, start = {}, 0
    for name, values in sides.items():
        _check_side(name, values)
        rows[name] = slice(start, start + len(values))
        start += len(values)
    of = [f"answered {name}" if f"answered {name}" in others else "answered" for name in refused]
    for name, other in zip(refused, of, strict=True):
        same = torch.equal(refused[name], others[other])
        must = "the two sides must differ"
        _require("contrasts", not same, must, f"identical ones for {name}", "Check what each was read from.")
    answered_rows = tuple(rows[name] for name in of)
    return Contrasts(_gram(sides), tuple(refused), tuple(rows[f"refused {name}"] for name in refused), answered_rows)


def behaviour_contrasts(buckets: Mapping[str, Float[Tensor, "_ d_model"]]) -> Contrasts:
    """All contrasts between sets of prompts told apart by what they are and what the model did with them.

    `buckets` are HR, HC, BR, BC (harmful or benign, refused or complied with) of Joad et al. 2602.02132, or others;
    the contrasts are named "HR-BC" and so on, each pair once, the earlier bucket less the later. Raises `ValueError`
    for fewer than 4 prompts in a bucket and values that are not finite.
    """
    rows, start = {}, 0
    for name, values in buckets.items():
        _check_side(name, values)
        rows[name] = slice(start, start + len(values))
        start += len(values)
    pairs = list(combinations(buckets, 2))
    names = tuple(f"{first}-{second}" for first, second in pairs)
    sides = [tuple(rows[pair[place]] for pair in pairs) for place in (0, 1)]
    return Contrasts(_gram(buckets), names, sides[0], sides[1])


def _gram(sides: Mapping[str, Tensor]) -> Float[Tensor, "prompt prompt"]:
    stacked = torch.cat([values.double() for values in sides.values()])
    centred = stacked - stacked.mean(0)
    return centred @ centred.T


def _answered_sides(refused: Mapping[str, Tensor], answered: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not isinstance(answered, Mapping):
        return {"answered": answered}
    missing = ", ".join(name for name in refused if name not in answered)
    _require("contrasts", not missing, "every category must have answered prompts", f"none for {missing}", "Add them.")
    return {f"answered {name}": answered[name] for name in refused}


def _check_side(name: str, values: Tensor) -> None:
    _require(
        "contrasts",
        len(values) >= MIN_PROMPTS,
        f"at least {MIN_PROMPTS} prompts on a side",
        f"{len(values)} in {name}",
        "Add prompts.",
    )
    bad = (~torch.isfinite(values)).flatten(1).any(1)
    if bad.any():
        kind = "float16 overflows" if values.dtype == torch.float16 else "NaN or inf"
        _require(
            "contrasts",
            False,
            "activations must be finite",
            f"{kind} in {name}, prompt {int(bad.nonzero()[0])}",
            "Capture in bfloat16 or float32.",
        )


def full_counts(sample: Contrasts) -> Float[Tensor, "1 prompt"]:
    """Every prompt once: the counts of the data themselves."""
    return torch.ones(1, sample.n_prompts, dtype=torch.float64)


def bootstrap_counts(sample: Contrasts, n_draws: int, seed: int = 0) -> Float[Tensor, "draw prompt"]:
    """How often each prompt is drawn when every side is resampled with replacement to its own size."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.zeros(n_draws, sample.n_prompts, dtype=torch.float64)
    for side in sample.sides:
        n = side.stop - side.start
        drawn = torch.randint(n, (n_draws, n), generator=generator)
        counts[:, side].scatter_add_(1, drawn, torch.ones(n_draws, n, dtype=torch.float64))
    return counts


def subset_counts(
    sample: Contrasts, n: int, n_draws: int, seed: int = 0, part: int = 0
) -> Float[Tensor, "draw prompt"]:
    """1 for the `n` prompts of every side that a draw without replacement takes, else 0.

    `part` 1, 2, ... of the same seed are disjoint from part 0 and from one another in every draw. Raises `ValueError`
    where a side is too small.
    """
    generator = torch.Generator().manual_seed(seed)
    counts = torch.zeros(n_draws, sample.n_prompts, dtype=torch.float64)
    for side in sample.sides:
        size = side.stop - side.start
        _require(
            "subset_counts",
            (part + 1) * n <= size,
            f"{(part + 1) * n} prompts are needed on every side",
            str(size),
            "Draw fewer.",
        )
        order = torch.rand(n_draws, size, generator=generator).argsort(1)[:, part * n : (part + 1) * n]
        counts[:, side].scatter_(1, order, 1.0)
    return counts


def inner_products(
    sample: Contrasts, counts: Float[Tensor, "draw prompt"], others: Float[Tensor, "draw prompt"] | None = None
) -> Float[Tensor, "draw category category"]:
    """Inner products of the directions (not normalised) of all categories, for every draw; rows from `counts`,
    columns from `others` (`counts` by default)."""
    return sample.signs @ _mean_products(sample, counts, counts if others is None else others) @ sample.signs.T


def _mean_products(
    sample: Contrasts, counts: Float[Tensor, "draw prompt"], others: Float[Tensor, "draw prompt"]
) -> Float[Tensor, "draw side side"]:
    """Inner products of the means of all sides. Sides are disjoint, so each meets its own rows of the Gram matrix only."""
    rows, columns = _shares(sample, counts), _shares(sample, others)
    products = torch.empty(len(counts), len(sample.sides), len(sample.sides), dtype=torch.float64)
    for first, side in enumerate(sample.sides):
        met = (rows[:, side] @ sample.gram[side]) * columns
        for second, other in enumerate(sample.sides):
            products[:, first, second] = met[:, other].sum(1)
    return products


def _shares(sample: Contrasts, counts: Float[Tensor, "draw prompt"]) -> Float[Tensor, "draw prompt"]:
    """Counts over the number of prompts drawn of their side: the weights of a mean."""
    shares = torch.empty_like(counts)
    for side in sample.sides:
        shares[:, side] = counts[:, side] / counts[:, side].sum(1, keepdim=True)
    return shares


def noise_products(sample: Contrasts, counts: Float[Tensor, "draw prompt"]) -> Float[Tensor, "draw category category"]:
    """What sampling noise adds to each of `inner_products` on average: the variances of the means of shared sides.

    With unbiased covariances S, tr(S_refused)/n + tr(S_answered)/m on the diagonal, and tr(S_answered)/m off it where
    the answered prompts are the same; a side that is refused prompts here and answered ones there counts negatively.
    """
    variances = torch.stack([_variance_of_mean(sample, counts[:, side], side) for side in sample.sides], dim=1)
    return (sample.signs * variances[:, None]) @ sample.signs.T


def _variance_of_mean(sample: Contrasts, counts: Float[Tensor, "draw prompt"], side: slice) -> Float[Tensor, " draw"]:
    gram, n = sample.gram[side, side], counts.sum(1)
    weights = counts / n[:, None]
    spread = weights @ gram.diagonal() - ((weights @ gram) * weights).sum(1)
    return spread / (n - 1)


def cosines(products: Float[Tensor, "*draw category category"]) -> Float[Tensor, "*draw category category"]:
    """Cosines from a matrix of inner products; NaN where a squared length is not above zero (all noise)."""
    squared = products.diagonal(dim1=-2, dim2=-1)
    lengths = squared.where(squared > 0, torch.nan).sqrt()
    return products / (lengths[..., :, None] * lengths[..., None, :])


def reliability(sample: Contrasts) -> Float[Tensor, " category"]:
    """The share of each direction's squared length that is not sampling noise: 1 is perfect, 0 or less is pure noise."""
    counts = full_counts(sample)
    squared = inner_products(sample, counts)[0].diagonal()
    return 1 - noise_products(sample, counts)[0].diagonal() / squared


def cosine_intervals(sample: Contrasts, n_draws: int = 1000, level: float = 0.95, seed: int = 0) -> CosineIntervals:
    """The cosines of all pairs, raw and corrected for sampling noise, with a bootstrap interval for the corrected ones.

    A pivotal interval on Fisher's z scale over draws that resample every side once for all categories. In the
    bootstrap's world the data's own directions, noise included, are the truth, so a draw's corrected cosine is held
    against the raw one; those directions are too long by 1/reliability, and deviations are stretched by it. Coverage
    is measured in the tests. Source: Efron & Tibshirani 1993, ch. 13; correction for attenuation: Spearman 1904.
    """
    counts = full_counts(sample)
    products, noise = inner_products(sample, counts)[0], noise_products(sample, counts)[0]
    raw, corrected = cosines(products), cosines(products - noise)
    share = 1 - noise.diagonal() / products.diagonal()
    drawn = bootstrap_counts(sample, n_draws, seed)
    moved = cosines(inner_products(sample, drawn) - noise_products(sample, drawn))
    stretch = (share[:, None] * share[None, :]).clamp(min=1e-3) ** -0.5
    deviations = (_z(moved) - _z(raw)) * stretch
    tail = (1 - level) / 2
    low, high = (torch.tanh(_z(corrected) - deviations.nanquantile(q, dim=0)) for q in (1 - tail, tail))
    return CosineIntervals(_with_ones(raw), _with_ones(corrected), _with_ones(low), _with_ones(high), share.float())


def _z(cosine: Tensor) -> Tensor:
    return torch.atanh(cosine.clamp(-0.9999, 0.9999))


def _with_ones(matrix: Tensor) -> Float[Tensor, "category category"]:
    return matrix.clone().fill_diagonal_(1.0).float()


def subset_cosines(
    sample: Contrasts, n: int, n_draws: int = 100, seed: int = 0, against: str = "all"
) -> Float[Tensor, "draw category category"]:
    """The cosine of each category's direction from `n` prompts a side (row) with another estimate of every direction.

    `against` "all": the directions of all prompts (mini-bucket against oracle, Joad et al. 2602.02132, Appendix D);
    "disjoint": the directions of `n` other prompts a side (Table 8). Raises `ValueError` where a side is too small.
    """
    first = subset_counts(sample, n, n_draws, seed)
    second = full_counts(sample).expand(n_draws, -1) if against == "all" else subset_counts(sample, n, n_draws, seed, 1)
    across = inner_products(sample, first, second)
    lengths = [inner_products(sample, counts).diagonal(dim1=1, dim2=2).sqrt() for counts in (first, second)]
    return (across / (lengths[0][:, :, None] * lengths[1][:, None, :])).float()


def _require(function: str, holds: bool, must: str, got: str, todo: str) -> None:
    if not holds:
        raise ValueError(f"{function}: {must}; got {got}. {todo}")
