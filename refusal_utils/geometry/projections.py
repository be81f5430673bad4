"""Views of many activations in two or three dimensions, what each view distorts, and projections on directions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float
from scipy.spatial import procrustes
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.manifold import trustworthiness
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ..checks import require, require_known
from ..directions.direction_set import DirectionSet
from ..directions.estimation import require_finite
from ..plotting.look import DIVERGING, heatmap
from ..plotting.points import add_arrows, coordinate_slider, embedding_scatter, projection_scatter
from ..prompts.categories import BENIGN

MIN_POINTS = 10
N_NEIGHBOURS = 15


@dataclass(frozen=True, eq=False)
class Views:
    """Planes through the states of some prompts, and their UMAP embeddings; made by `fit_views`.

    `points` has a row per prompt (id, category, outcome), `where` names hook, layer and position. `fitted` and
    `fitted_labels` are other prompts and their categories, from which LDA learns to tell categories apart: on its own
    prompts it would separate noise.
    """

    states: Float[Tensor, "prompt d_model"] = field(repr=False)
    points: pd.DataFrame = field(repr=False)
    where: str
    fitted: Float[Tensor, "fitted_prompt d_model"] = field(repr=False)
    fitted_labels: np.ndarray = field(repr=False)
    umaps: Mapping[str, Float[Tensor, "prompt 2"]] = field(default_factory=dict, repr=False)

    @cached_property
    def pca(self) -> PCA:
        """scikit-learn's three principal axes of the states."""
        return PCA(3, svd_solver="full").fit(self.states.double().numpy())

    @cached_property
    def lda(self) -> LinearDiscriminantAnalysis:
        """scikit-learn's discriminant axes of the fitted prompts, with a shrunk covariance."""
        return _lda(self.fitted.double().numpy(), self.fitted_labels, n_axes=2)

    def with_umaps(self, seeds: Sequence[int], metric: str = "cosine") -> "Views":
        """These views and a UMAP embedding per seed, called `UMAP, seed 0` and so on.

        Distances between clusters and their sizes mean nothing. Source: McInnes, Healy, Melville 2018 (umap-learn).
        """
        from umap import UMAP  # compiles for seconds on import

        options = {"n_neighbors": min(N_NEIGHBOURS, len(self.states) - 1), "metric": metric, "n_jobs": 1}
        fits = {seed: UMAP(random_state=seed, **options) for seed in seeds}
        states = self.states.float().numpy()
        found = {f"UMAP, seed {seed}": torch.as_tensor(fit.fit_transform(states)) for seed, fit in fits.items()}
        return replace(self, umaps=found)

    def coordinates(self, view: str, n_axes: int = 2) -> pd.DataFrame:
        """The coordinates of the prompts in the view `PCA`, `LDA` or one of `umaps`, then the columns of `points`.

        Raises `ValueError` for any other view.
        """
        known = ["PCA", "LDA", *self.umaps]
        require_known("Views.coordinates", "the view", view, known)
        if view in self.umaps:
            values, axis = self.umaps[view].numpy(), "UMAP"
        else:
            fit, axis = (self.pca, "PC") if view == "PCA" else (self.lda, "LD")
            values = fit.transform(self.states.double().numpy())
        names = [f"{axis} {number + 1}" for number in range(n_axes)]
        return pd.DataFrame(values[:, :n_axes], columns=names, index=self.points.index).join(self.points)

    @cached_property
    def lda_correct(self) -> dict[str, Bool[np.ndarray, " prompt"]]:
        """Whether LDA of the fitted prompts predicts each prompt's category, from a plane or all axes of the state.

        The keys are `plane of PCA`, `plane of LDA` and `all axes`. If all categories have clouds of the same shape, no
        classifier can do better in a plane.
        """
        seen = {
            "plane of PCA": lambda states: self.pca.transform(states)[:, :2],
            "plane of LDA": self.lda.transform,
            "all axes": np.asarray,
        }
        fitted, shown = (states.double().numpy() for states in (self.fitted, self.states))
        kinds = self.points["category"].to_numpy()
        return {name: _lda(see(fitted), self.fitted_labels).predict(see(shown)) == kinds for name, see in seen.items()}

    def length_held(self, directions: Float[Tensor, "category d_model"]) -> Float[Tensor, " category"]:
        """The share of each direction's length that lies in the plane of PCA: 1 if the picture shows all of it."""
        axes = torch.as_tensor(self.pca.components_[:2], dtype=torch.float64)
        return ((directions.double() @ axes.T).norm(dim=1) / directions.double().norm(dim=1)).float()

    def table(self) -> pd.DataFrame:
        """By view: `trustworthiness`, `continuity`, and `disparity` to the first UMAP embedding (to PCA without one).

        Trustworthiness is 1 if no neighbour is invented, continuity is 1 if none is torn away (Venna & Kaski 2001; 15
        neighbours). Disparity is what no shift, rotation, reflection or scaling removes (Procrustes): 0 if two views
        are the same, 1 if they are unrelated.
        """
        high = self.states.double().numpy()
        views = {name: self.coordinates(name).iloc[:, :2].to_numpy(np.float64) for name in ("PCA", "LDA", *self.umaps)}
        first = next(iter(self.umaps), "PCA")
        n = min(N_NEIGHBOURS, (len(high) - 1) // 2)
        rows = {
            name: {
                "trustworthiness": trustworthiness(high, low, n_neighbors=n),
                "continuity": trustworthiness(low, high, n_neighbors=n),
                "disparity": procrustes(low, views[first])[2],
            }
            for name, low in views.items()
        }
        return pd.DataFrame(rows).T.rename_axis("view")

    def figure(self, view: str, n_axes: int = 2, directions: DirectionSet | None = None) -> go.Figure:
        """The prompts in a view, with the directions as arrows from the benign mean if given (in the plane of PCA).

        An arrow is as long as the part of its direction that lies in the plane: a short one points out of the picture.
        """
        frame = self.coordinates(view, n_axes)
        axes = list(frame)[:n_axes]
        space = "in a plane" if n_axes == 2 else f"along {n_axes} axes"
        arrows = "" if directions is None else ", with the directions as arrows"
        title = f"{len(frame)} prompts {space}: {view}{arrows}"
        figure = embedding_scatter(frame, *axes, where=self.where, title=title)
        if directions is None:
            return figure
        start = frame.loc[frame["category"] == BENIGN, axes].mean().to_numpy()
        reach = 0.5 * np.ptp(frame[axes[0]])
        tips = directions.vectors.double().numpy() @ self.pca.components_[:2].T * reach + start
        return add_arrows(figure, start, dict(zip(directions, tips, strict=True)))


def fit_views(
    states: Float[Tensor, "prompt d_model"],
    points: pd.DataFrame,
    fitted: Float[Tensor, "fitted_prompt d_model"],
    fitted_labels: np.ndarray,
    *,
    where: str,
) -> Views:
    """The views of `states` by PCA, and by LDA that is fitted on other prompts; see `Views`.

    Raises `ValueError` for fewer than 10 prompts on either side, or values that are not finite.
    """
    for own in (states, fitted):
        require(len(own) >= MIN_POINTS, "fit_views", "a view needs at least 10 prompts", len(own), "Take more prompts.")
        require_finite("fit_views", own, "states")
    return Views(states, points.reset_index(drop=True), where, fitted, np.asarray(fitted_labels))


@dataclass(frozen=True, eq=False)
class LayerViews:
    """The PCA plane of several layers; `views` maps a layer to its `Views`, all of the same prompts."""

    views: Mapping[int, Views]

    def table(self) -> pd.DataFrame:
        """By layer: the share of variance in the plane of PCA, and the share of prompts whose category LDA predicts."""
        shares = [own.pca.explained_variance_ratio_[:2].sum() for own in self.views.values()]
        told = [own.lda_correct["all axes"].mean() for own in self.views.values()]
        index = pd.Index(self.views, name="layer")
        return pd.DataFrame({"share of variance": shares, "category told (all axes)": told}, index)

    def figure(self, layer: int, *, where: str) -> go.Figure:
        """The plane of one layer, with a slider that moves the prompts to their places at the others.

        `where` names hook and position.
        """
        title = "Prompts in the PCA plane of each layer"
        shares = self.table()["share of variance"]
        frames = {each: own.coordinates("PCA") for each, own in self.views.items()}
        places = {each: frame.iloc[:, :2].to_numpy().round(2) for each, frame in frames.items()}
        steps = {f"{each} ({shares[each]:.0%})": place for each, place in places.items()}
        figure = embedding_scatter(frames[layer], "PC 1", "PC 2", where=where, title=title)
        active = list(frames).index(layer)
        return coordinate_slider(figure, frames[layer]["id"], steps, active, "layer (share of variance): ")


@dataclass(frozen=True, eq=False)
class Projections:
    """The lengths of prompts along directions (columns of `lengths`: the category of each); made by `project`."""

    lengths: pd.DataFrame = field(repr=False)
    points: pd.DataFrame = field(repr=False)
    where: str

    @cached_property
    def auc(self) -> pd.DataFrame:
        """AUC of every direction (row) for every category (column): how well it tells its prompts from benign ones.

        0.5: not at all; 1: every prompt of the category lies further along the direction than every benign one.
        """
        labels, found = self.points["category"], {}
        for name in self.lengths:
            known = labels.isin([name, BENIGN])
            found[name] = self.lengths[known].apply(partial(roc_auc_score, labels[known] == name))
        return pd.DataFrame(found)

    def table(self) -> pd.DataFrame:
        """By category: the AUC of its own direction, the mean of the others', and the direction with the largest."""
        own, n = np.diag(self.auc), len(self.auc)
        others = (self.auc.sum() - own) / (n - 1)
        return pd.DataFrame({"own": own, "mean of others": others, "largest": self.auc.max(), "by": self.auc.idxmax()})

    def figure(self) -> go.Figure:
        """The prompts along any two directions, chosen in menus."""
        title = f"{len(self.points)} prompts along two directions"
        return projection_scatter(self.points, self.lengths, where=self.where, title=title)

    def auc_figure(self) -> go.Figure:
        """The map of `auc`, centred on 0.5."""
        title = "How well each direction (row) tells each category (column) from benign prompts"
        figure = heatmap(self.auc, title=title, value=f"AUC, {self.where}", limits=(0, 1))
        return figure.update_coloraxes(colorscale=DIVERGING)


def project(
    states: Float[Tensor, "prompt d_model"], directions: DirectionSet, points: pd.DataFrame, *, where: str
) -> Projections:
    """The lengths of `states` along unit directions; `points` has a row per prompt (id, category, outcome)."""
    lengths = pd.DataFrame((states @ directions.vectors.T).numpy(), columns=list(directions.names))
    return Projections(lengths, points.reset_index(drop=True), where)


def _lda(states: np.ndarray, labels: np.ndarray, n_axes: int | None = None) -> LinearDiscriminantAnalysis:
    lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto", n_components=n_axes)
    return lda.fit(states, labels)
