"""Refused against answered prompts as one Gram matrix, and the inner products of directions under resampling.

A difference in means weights prompts, +1/n on each refused and -1/m on each answered one. Every bootstrap draw, subset
or permutation is another weighting, and every inner product of two directions is w G v, whatever d_model is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate, combinations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..checks import require

MIN_PROMPTS = 4
States = Mapping[str, Float[Tensor, "_ d_model"]]
Twins = Mapping[str, tuple[Float[Tensor, "_ d_model"], Float[Tensor, "_ d_model"]]]  # refused, benign; row by row


@dataclass(frozen=True, eq=False)
class Contrasts:
    """Refused against answered prompts of several categories, as the Gram matrix of all prompts.

    `gram` contains the inner products of the activations minus their common mean, in float64. `refused` and `answered`
    give the rows of each category; categories measured against the same answered prompts share these rows.
    """

    gram: Float[Tensor, "prompt prompt"] = field(repr=False)
    categories: tuple[str, ...]
    refused: tuple[slice, ...]
    answered: tuple[slice, ...]

    @property
    def sides(self) -> list[slice]:
        """Each side once: the sets of prompts that are resampled independently."""
        every = [*self.refused, *self.answered]
        return [side for index, side in enumerate(every) if side not in every[:index]]

    @property
    def signs(self) -> Float[Tensor, "category side"]:
        """1 if a side has the category's refused prompts, -1 if it has its answered ones, else 0."""
        pairs = zip(self.refused, self.answered, strict=True)
        rows = [[(side == refused) - (side == answered) for side in self.sides] for refused, answered in pairs]
        return torch.tensor(rows, dtype=torch.float64)

    @property
    def strata(self) -> Int[Tensor, " prompt"]:
        """The number of the side that each prompt belongs to (`bootstrap_counts`)."""
        strata = torch.empty(len(self.gram), dtype=torch.long)
        for number, side in enumerate(self.sides):
            strata[side] = number
        return strata

    @property
    def every_prompt(self) -> Float[Tensor, "1 prompt"]:
        """Counts that take each prompt once: the data themselves."""
        return torch.ones(1, len(self.gram), dtype=torch.float64)

    @property
    def cosines(self) -> Float[Tensor, "category category"]:
        """Plain cosines between the directions of all categories."""
        return cosines(inner_products(self, self.every_prompt)[0])


def contrasts(refused: States, answered: Float[Tensor, "answered_prompt d_model"] | States) -> Contrasts:
    """The contrasts of each category in `refused` with `answered`: one set for all, or one per category.

    Raises `ValueError` for fewer than 4 prompts on a side, values that are not finite (side and prompt named), a
    category without answered prompts, and a category whose two sides are identical.
    """
    require(bool(refused), "contrasts", "there must be at least one category", "none", "Check how they were chosen.")
    shared = not isinstance(answered, Mapping)
    given: States = dict.fromkeys(refused, answered) if isinstance(answered, Tensor) else answered
    missing = ", ".join(name for name in refused if name not in given)
    require(not missing, "contrasts", "every category must have answered prompts", f"none for {missing}", "Add them.")
    other_of = {name: "answered" if shared else f"answered {name}" for name in refused}
    others = {other_of[name]: given[name] for name in refused}
    gram, rows = _stack({f"refused {name}": states for name, states in refused.items()} | others)
    for name in refused:
        same, got = torch.equal(refused[name], given[name]), f"identical ones for {name}"
        require(not same, "contrasts", "the two sides must differ", got, "Check what each was read from.")
    refused_rows = tuple(rows[f"refused {name}"] for name in refused)
    return Contrasts(gram, tuple(refused), refused_rows, tuple(rows[other] for other in other_of.values()))


def behaviour_contrasts(buckets: States) -> Contrasts:
    """The contrast of every two buckets of prompts, the earlier minus the later, called "HR-BC" and so on.

    `buckets` are HR, HC, BR, BC (harmful or benign, refused or complied with) of Joad et al. 2602.02132, or others.
    Raises `ValueError` for fewer than 4 prompts in a bucket and for values that are not finite.
    """
    gram, rows = _stack(buckets)
    pairs = list(combinations(buckets, 2))
    first, second = (tuple(rows[pair[place]] for pair in pairs) for place in (0, 1))
    return Contrasts(gram, tuple("-".join(pair) for pair in pairs), first, second)


def twin_contrasts(twins: Twins) -> Contrasts:
    """The differences between refused prompts and their benign twins, as contrasts with zero, so pairs stay together.

    What a pair shares, such as its topic, cancels out of the directions. Raises `ValueError` as `contrasts` does.
    """
    differences = {name: own - other for name, (own, other) in twins.items()}
    width = next(iter(differences.values())).shape[1]
    return contrasts(differences, torch.zeros(MIN_PROMPTS, width))


def _stack(sides: States) -> tuple[Float[Tensor, "prompt prompt"], dict[str, slice]]:
    """(the Gram matrix of all prompts about their common mean, the rows of each side)."""
    for name, states in sides.items():
        _check_side(name, states)
    ends = accumulate(map(len, sides.values()))
    rows = {name: slice(end - len(sides[name]), end) for name, end in zip(sides, ends, strict=True)}
    stacked = torch.cat([states.double() for states in sides.values()])
    centred = stacked - stacked.mean(0)
    return centred @ centred.T, rows


def _check_side(name: str, states: Tensor) -> None:
    must, got = f"there must be at least {MIN_PROMPTS} prompts on a side", f"{len(states)} in {name}"
    require(len(states) >= MIN_PROMPTS, "contrasts", must, got, "Add prompts.")
    bad = (~torch.isfinite(states)).flatten(1).any(1).nonzero()[:, 0].tolist()
    kind = "float16 overflows" if states.dtype == torch.float16 else "NaN or inf"
    got = f"{kind} in {name}, prompt {bad[0] if bad else ''}"
    require(not bad, "contrasts", "activations must be finite", got, "Capture in bfloat16 or float32.")


def inner_products(
    sample: Contrasts, counts: Float[Tensor, "draw prompt"], others: Float[Tensor, "draw prompt"] | None = None
) -> Float[Tensor, "draw category category"]:
    """Inner products of the differences in means of all categories, for every draw.

    Rows are estimated from `counts`, columns from `others` (`counts` if None).
    """
    rows = _weights(sample, counts)
    columns = rows if others is None else _weights(sample, others)
    products = torch.empty(len(counts), len(sample.sides), len(sample.sides), dtype=torch.float64)
    for first, side in enumerate(sample.sides):
        met = (rows[:, side] @ sample.gram[side]) * columns  # a side meets only its own rows of the Gram matrix
        for second, other in enumerate(sample.sides):
            products[:, first, second] = met[:, other].sum(1)
    return sample.signs @ products @ sample.signs.T


def _weights(sample: Contrasts, counts: Float[Tensor, "draw prompt"]) -> Float[Tensor, "draw prompt"]:
    """Counts divided by the number of prompts drawn from their side: the weights of a mean."""
    weights = torch.empty_like(counts)
    for side in sample.sides:
        weights[:, side] = counts[:, side] / counts[:, side].sum(1, keepdim=True)
    return weights


def noise_products(sample: Contrasts, counts: Float[Tensor, "draw prompt"]) -> Float[Tensor, "draw category category"]:
    """What sampling noise adds to each of `inner_products` on average: the variances of the means of shared sides.

    With unbiased covariances S this is tr(S_refused)/n + tr(S_answered)/m on the diagonal, and tr(S_answered)/m off it
    if the answered prompts are shared. A side that is refused in one contrast and answered in the other counts
    negatively.
    """
    variances, weights = [], _weights(sample, counts)
    for side in sample.sides:
        gram, own, n = sample.gram[side, side], weights[:, side], counts[:, side].sum(1)
        variances.append((own @ gram.diagonal() - ((own @ gram) * own).sum(1)) / (n - 1))
    return (sample.signs * torch.stack(variances, dim=1)[:, None]) @ sample.signs.T


def cosines(products: Float[Tensor, "*draw category category"]) -> Float[Tensor, "*draw category category"]:
    """Cosines from a matrix of inner products; NaN if a squared length is not above zero (all noise)."""
    squared = products.diagonal(dim1=-2, dim2=-1)
    lengths = squared.where(squared > 0, torch.nan).sqrt()
    return products / (lengths[..., :, None] * lengths[..., None, :])
