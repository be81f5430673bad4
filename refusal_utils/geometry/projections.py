"""Views of many activations in two or three dimensions, and what each view gets wrong."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from scipy.spatial import procrustes
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.manifold import trustworthiness
from sklearn.metrics import roc_auc_score
from torch import Tensor

MIN_POINTS = 10
N_NEIGHBOURS = 15


def fit_pca(activations: Float[Tensor, "prompt d_model"], n_axes: int = 2) -> PCA:
    """scikit-learn's principal axes of `activations`: `.components_`, `.transform`, `.explained_variance_ratio_`.

    Raises `ValueError` for fewer than 10 prompts.
    """
    _check("fit_pca", activations)
    return PCA(n_axes, svd_solver="full").fit(activations.double().numpy())


def fit_lda(
    activations: Float[Tensor, "prompt d_model"], labels: np.ndarray, n_axes: int = 2
) -> LinearDiscriminantAnalysis:
    """scikit-learn's axes along which the classes lie furthest apart for their spread (covariance shrunk).

    Fit it on some prompts and look at others: on its own prompts it separates noise. Raises `ValueError` for fewer than
    10 prompts.
    """
    _check("fit_lda", activations)
    lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto", n_components=n_axes)
    return lda.fit(activations.double().numpy(), labels)


def told_apart(
    fitted: Float[Tensor, "fitted_prompt rank"],
    fitted_labels: np.ndarray,
    shown: Float[Tensor, "shown_prompt rank"],
    shown_labels: np.ndarray,
) -> Bool[np.ndarray, " shown_prompt"]:
    """Whether LDA, fitted on some prompts, names the label of each of the `shown` ones from where it lies.

    `rank` is d_model for states, 2 for a plane: what a picture in that plane can tell at most, if the clouds are alike in
    form. Raises `ValueError` as `fit_lda`.
    """
    found: np.ndarray = fit_lda(fitted, fitted_labels).predict(shown.double().numpy()) == shown_labels
    return found


def fit_umap(
    activations: Float[Tensor, "prompt d_model"], seed: int, metric: Literal["euclidean", "cosine"] = "cosine"
) -> Float[Tensor, "prompt 2"]:
    """A UMAP embedding, the same for the same seed. Distances between and sizes of its clusters mean nothing.

    Raises `ValueError` for fewer than 10 prompts. Source: McInnes, Healy, Melville 2018, as in umap-learn.
    """
    _check("fit_umap", activations)
    from umap import UMAP  # compiles for seconds on import

    fit = UMAP(n_neighbors=min(N_NEIGHBOURS, len(activations) - 1), metric=metric, random_state=seed, n_jobs=1)
    return torch.as_tensor(fit.fit_transform(activations.float().numpy()))


def trust_and_continuity(
    activations: Float[Tensor, "prompt d_model"], embedding: Float[Tensor, "prompt rank"]
) -> tuple[float, float]:
    """(trustworthiness, continuity) of 15 neighbours: 1 where none is invented, and where none is torn away.

    Source: Venna & Kaski 2001; continuity is trustworthiness with both spaces exchanged.
    """
    high, low = activations.double().numpy(), embedding.double().numpy()
    n_neighbours = min(N_NEIGHBOURS, (len(high) - 1) // 2)
    return (
        float(trustworthiness(high, low, n_neighbors=n_neighbours)),
        float(trustworthiness(low, high, n_neighbors=n_neighbours)),
    )


def disparity(first: Float[Tensor, "prompt rank"], second: Float[Tensor, "prompt rank"]) -> float:
    """How much of one embedding no shift, turn, mirror and scaling of the other explains: 0 the same, 1 unrelated.

    Source: Procrustes analysis, as in scipy.
    """
    return float(procrustes(first.double().numpy(), second.double().numpy())[2])


def view_quality(
    activations: Float[Tensor, "prompt d_model"], views: Mapping[str, Float[Tensor, "prompt 2"]], reference: str
) -> pd.DataFrame:
    """By view of the same prompts, its `trustworthiness`, `continuity`, and `disparity` to the view called `reference`."""
    rows = {
        name: (*trust_and_continuity(activations, view), disparity(view, views[reference]))
        for name, view in views.items()
    }
    columns = ["trustworthiness", "continuity", "disparity"]
    return pd.DataFrame(rows.values(), index=pd.Index(rows, name="view"), columns=columns)


def separation(projected: pd.DataFrame, labels: pd.Series, rest: str = "benign") -> pd.DataFrame:
    """AUC of every direction (row) for every category (column): how it tells its prompts from those labelled `rest`.

    `projected` holds the prompts' lengths along the directions (columns: the category of each). 0.5: it tells nothing;
    1: every prompt of the category lies further along it than every one of the rest. As in scikit-learn.
    """
    others, table = labels == rest, {}
    for name in projected:
        met = others | (labels == name)
        table[name] = [roc_auc_score(labels[met] == name, projected.loc[met, direction]) for direction in projected]
    return pd.DataFrame(table, index=list(projected))


def length_held(directions: Float[Tensor, "category d_model"], pca: PCA) -> Float[Tensor, " category"]:
    """The share of each direction's length that lies in the plane (or space) of `pca`: 1 if the picture holds all."""
    axes = torch.as_tensor(pca.components_, dtype=torch.float64)
    return ((directions.double() @ axes.T).norm(dim=1) / directions.double().norm(dim=1)).float()


def _check(function: str, activations: Tensor) -> None:
    if len(activations) < MIN_POINTS:
        raise ValueError(
            f"{function}: a view needs at least {MIN_POINTS} prompts; got {len(activations)}. Take more prompts."
        )
    if not torch.isfinite(activations).all():
        row = int((~torch.isfinite(activations)).any(1).nonzero()[0])
        raise ValueError(
            f"{function}: activations must be finite; got NaN or inf in prompt {row}. Capture in bfloat16 or float32."
        )
