"""The space that several directions span: its dimensions, their common axis, and the angles to another."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from scipy.linalg import subspace_angles
from torch import Tensor

from ..directions.comparison import cosine_frame
from ..directions.estimation import normalize
from .clusters import Clusters


def span_size(directions: Float[Tensor, "category d_model"]) -> dict[str, float]:
    """How many dimensions the directions span, each scaled to norm 1: three readings of their singular values.

    `effective rank`: exp of the entropy of the normalised values (Roy & Vetterli 2007), and `participation ratio`:
    (sum of eigenvalues)^2 / (sum of squared eigenvalues): k for k orthogonal directions, 1 for k equal ones.
    `common axis`: the share of the squared length on the closest axis, 1/k for k orthogonal directions, 1 for equal
    ones.
    """
    values = torch.linalg.svdvals(normalize(directions).double())
    eigenvalues = values.square()
    return {
        "effective rank": float(torch.special.entr(values / values.sum()).sum().exp()),
        "participation ratio": float(eigenvalues.sum().square() / eigenvalues.square().sum()),
        "common axis": float(eigenvalues[0] / eigenvalues.sum()),
    }


def principal_angles(
    first: Float[Tensor, "category d_model"], second: Float[Tensor, "other_category d_model"]
) -> Float[Tensor, " rank"]:
    """The angles in degrees between the spans of two sets of directions, smallest first: 0 if they share an axis.

    Source: Knyazev & Argentati 2002 (scipy's implementation).
    """
    angles = subspace_angles(first.double().T.numpy(), second.double().T.numpy())
    return torch.as_tensor(angles, dtype=torch.float64).rad2deg().flip(0).float()


def space_summary(
    directions: Mapping[str, Float[Tensor, " d_model"]], cluster_of: Mapping[str, str]
) -> dict[str, float]:
    """The span of the directions: its rank, their common axis, and how clearly they form clusters.

    `cluster angle`: smallest angle, in degrees, between the spans of the two clusters that `cluster_of` names (NaN if
    all directions are of one);
    `silhouette n, method`: for 2 to 6 clusters under both linkages; `same two clusters`: 1 if average linkage finds the
    two that `cluster_of` names.
    """
    names, units = list(directions), torch.stack([directions[name] for name in directions])
    kinds = [cluster_of[name] for name in names]
    first = torch.tensor([kind == kinds[0] for kind in kinds])
    clusters = Clusters(cosine_frame(units, names))
    scores = clusters.silhouettes()
    angle = principal_angles(units[first], units[~first])[0] if (~first).any() else float("nan")
    return {
        **span_size(units),
        "cluster angle": float(angle),
        "same two clusters": float(len(set(zip(clusters.cut(2), kinds, strict=True))) == 2),
        **{f"silhouette {n}, {method}": float(scores.loc[n, method]) for method in scores for n in scores.index},
    }
