"""Pure maths on refusal directions: estimate, compare, project, ablate. Every function computes in float32 or better."""

import torch
from jaxtyping import Float
from sklearn.covariance import ledoit_wolf
from torch import Tensor

# Two means closer than this, relative to their own size, differ by rounding only.
COINCIDENT = 1e-5


def mean_difference(
    refused: Float[Tensor, "refused_prompt d_model"], answered: Float[Tensor, "answered_prompt d_model"]
) -> Float[Tensor, " d_model"]:
    """mean(refused) - mean(answered), not normalised: the raw gap, in units of the residual stream.

    Means are taken in float64 and returned as float32 (a bfloat16 mean is off by 0.2 %). Raises `ValueError` for an
    empty side or values that are not finite. Source: difference in means, Joad et al. 2602.02132; Arditi et al. 2406.11717.
    """
    for name, side in (("refused", refused), ("answered", answered)):
        _require("mean_difference", len(side) > 0, f"at least one {name} prompt", "none", "Pass rows of activations.")
        _require_finite("mean_difference", side, f"the {name} activations")
    return (refused.double().mean(0) - answered.double().mean(0)).float()


def mean_direction(
    refused: Float[Tensor, "refused_prompt d_model"], answered: Float[Tensor, "answered_prompt d_model"]
) -> Float[Tensor, " d_model"]:
    """The unit vector from the answered prompts' mean to the refused prompts' mean.

    Raises `ValueError` where the two means coincide up to rounding, as they do at layer 0 at template positions.
    """
    difference = mean_difference(refused, answered)
    size = max(float(refused.double().mean(0).norm()), float(answered.double().mean(0).norm()))
    norm = float(difference.double().norm())
    _require(
        "mean_direction",
        norm > COINCIDENT * size,
        "the two means must differ",
        f"norm {norm:.2g} over {len(refused)} and {len(answered)} rows",
        "Check that both sets were not read from the same prompts, or at layer 0.",
    )
    return normalize(difference)


def normalize(vectors: Float[Tensor, "*category d_model"]) -> Float[Tensor, "*category d_model"]:
    """`vectors` scaled to norm 1 along the last axis. Raises `ValueError` for a zero or non-finite vector.

    >>> normalize(torch.tensor([3.0, 4.0]))
    tensor([0.6000, 0.8000])
    """
    _require_finite("normalize", vectors, "the vectors")
    norms = vectors.double().norm(dim=-1, keepdim=True)
    _require(
        "normalize",
        bool((norms > 0).all()),
        "every vector must have a direction",
        f"{int((norms == 0).sum())} zero vectors",
        "Drop the layers where both means coincide.",
    )
    return (vectors.double() / norms).float()


def cosine_matrix(directions: Float[Tensor, "category d_model"]) -> Float[Tensor, "category category"]:
    """Cosines between all pairs of directions (raw: nothing is centred), symmetric, with ones on the diagonal.

    The input need not be normalised. Raises `ValueError` for a zero vector.

    >>> cosine_matrix(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))[0, 1]
    tensor(0.7071)
    """
    unit = normalize(directions).double()
    cosines = (unit @ unit.T).clamp(-1, 1)
    return cosines.fill_diagonal_(1.0).float()


def centred_cosines(directions: Float[Tensor, "category d_model"]) -> Float[Tensor, "category category"]:
    """Cosines after the mean of the unit directions is taken off each: what is left beyond the shared part.

    Centring k directions alone pushes the mean off-diagonal cosine to about -1/(k - 1): read the pattern, not the level.
    """
    unit = normalize(directions)
    return cosine_matrix(unit - unit.mean(0))


def whitened_cosines(
    directions: Float[Tensor, "category d_model"], residuals: Float[Tensor, "prompt d_model"]
) -> Float[Tensor, "category category"]:
    """Cosines in the metric in which `residuals` (activations less their class means) have the same spread everywhere.

    r' C^-1 s for the covariance C, shrunk towards a sphere as Ledoit & Wolf 2004 propose (scikit-learn's version).
    """
    covariance, _ = ledoit_wolf(residuals.double().numpy(), assume_centered=True)
    lower = torch.linalg.cholesky(torch.as_tensor(covariance))
    white = torch.linalg.solve_triangular(lower, directions.double().T, upper=False).T
    return cosine_matrix(white.float())


def feature_direction(
    activations: Float[Tensor, "prompt d_model"], feature: Float[Tensor, " prompt"]
) -> Float[Tensor, " d_model"]:
    """The unit vector along which `activations` move with a number per prompt, such as its length: their covariance.

    Raises `ValueError` where the feature is the same for every prompt, or the activations do not move with it.
    """
    centred = feature.double() - feature.double().mean()
    _require(
        "feature_direction",
        bool((centred.abs() > 0).any()),
        "the feature must vary",
        f"{float(feature[0]):.4g} for all {len(feature)} prompts",
        "Drop it.",
    )
    return normalize((centred @ activations.double()).float())


def random_directions(
    n: int, d_model: int, residuals: Float[Tensor, "prompt d_model"] | None = None, seed: int = 0
) -> Float[Tensor, "rank d_model"]:
    """`n` random unit vectors: the controls of a direction.

    Uniform on the sphere, or, with `residuals` (activations less their class means), drawn from the covariance of
    these, so that they lie where activations do vary.
    """
    generator = torch.Generator().manual_seed(seed)
    if residuals is None:
        return normalize(torch.randn(n, d_model, generator=generator))
    weights = torch.randn(n, len(residuals), generator=generator)
    return normalize(weights @ (residuals.float() - residuals.float().mean(0)))


def off_diagonal(matrix: Float[Tensor, "category category"]) -> Float[Tensor, " pair"]:
    """The entries above the diagonal, row by row: each unordered pair once.

    >>> off_diagonal(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([2.])
    """
    rows, columns = torch.triu_indices(len(matrix), len(matrix), offset=1)
    return matrix[rows, columns]


def project(
    activations: Float[Tensor, "*prompt d_model"], direction: Float[Tensor, " d_model"]
) -> Float[Tensor, "*prompt"]:
    """The signed length of every activation along `direction` (norm 1), in units of the residual stream.

    >>> project(torch.tensor([[2.0, 5.0]]), torch.tensor([1.0, 0.0]))
    tensor([2.])
    """
    require_unit("project", direction)
    return activations.float() @ direction.float()


def ablate(
    activations: Float[Tensor, "*prompt d_model"], directions: Float[Tensor, "*rank direction_d_model"]
) -> Float[Tensor, "*prompt d_model"]:
    """`activations` with nothing left along `directions`: x - (x . r) r, or off the whole span of several.

    One direction [d_model] or several [rank, d_model], which are orthonormalised first. Raises `ValueError` where a
    direction has not norm 1 or the widths differ. Source: directional ablation, Arditi et al. 2406.11717, eq. 4.

    >>> ablate(torch.tensor([[2.0, 5.0]]), torch.tensor([1.0, 0.0]))
    tensor([[0., 5.]])
    """
    stacked = directions.reshape(-1, directions.shape[-1])
    for direction in stacked:
        require_unit("ablate", direction)
    _require(
        "ablate",
        activations.shape[-1] == stacked.shape[-1],
        "activations and directions must have the same width",
        f"{activations.shape[-1]} and {stacked.shape[-1]}",
        "Take both from the same model.",
    )
    wide = activations.to(torch.promote_types(activations.dtype, torch.float32))
    basis = orthonormal_basis(stacked).to(wide.dtype)
    return (wide - wide @ basis.T @ basis).to(activations.dtype)


def orthonormal_basis(directions: Float[Tensor, "category d_model"]) -> Float[Tensor, "rank d_model"]:
    """Orthonormal rows that span the same space as `directions`, in float32 or better; dependent ones are dropped."""
    _, singular, rows = torch.linalg.svd(directions.double(), full_matrices=False)
    return rows[singular > 1e-6 * singular[0]].to(torch.promote_types(directions.dtype, torch.float32))


def split_half_cosine(
    refused: Float[Tensor, "refused_prompt d_model"],
    answered: Float[Tensor, "answered_prompt d_model"],
    n_splits: int = 50,
    seed: int = 0,
) -> float:
    """The mean cosine between the directions of two disjoint random halves of both sides, over `n_splits` divisions.

    Raises `ValueError` with fewer than 4 prompts on a side.
    """
    for name, side in (("refused", refused), ("answered", answered)):
        _require("split_half_cosine", len(side) >= 4, f"at least 4 {name} prompts", str(len(side)), "Add prompts.")
    generator = torch.Generator().manual_seed(seed)
    cosines = []
    for _ in range(n_splits):
        halves = [side[torch.randperm(len(side), generator=generator)] for side in (refused, answered)]
        first = mean_direction(*(side[: len(side) // 2] for side in halves))
        second = mean_direction(*(side[len(side) // 2 :] for side in halves))
        cosines.append(float(first @ second))
    return sum(cosines) / len(cosines)


def require_unit(function: str, direction: Float[Tensor, " d_model"], tolerance: float = 1e-3) -> None:
    """Raise `ValueError` in the name of `function` unless `direction` has norm 1."""
    norm = float(direction.double().norm())
    _require(
        function,
        abs(norm - 1) <= tolerance,
        "a direction must have norm 1",
        f"norm {norm:.4g}",
        "Use normalize() first, or mean_direction().",
    )


def _require_finite(function: str, values: Tensor, what: str) -> None:
    bad = int((~torch.isfinite(values)).sum())
    _require(function, bad == 0, f"{what} must be finite", f"{bad} values that are not", "Use bfloat16 or float32.")


def _require(function: str, holds: bool, must: str, got: str, todo: str) -> None:
    if not holds:
        raise ValueError(f"{function}: {must}; got {got}. {todo}")
