"""Which categories belong together: a tree of clusters, silhouettes, and a flat view of a map of cosines."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.decomposition import KernelPCA
from sklearn.metrics import silhouette_score

from ..checks import require
from ..plotting.look import POINT_LOOK, category_scatter, titles
from ..plotting.pairs import tree_figure
from ..prompts.categories import CATEGORIES, CATEGORY_IDS

LINKAGES = ("average", "complete")


def same_cluster_map() -> pd.DataFrame:
    """The map of the eleven categories that is 1 for two of one published cluster and 0 for two of different ones."""
    clusters = np.array([category.cluster for category in CATEGORIES])
    same = (clusters[:, None] == clusters[None]).astype(float)
    return pd.DataFrame(same, list(CATEGORY_IDS), list(CATEGORY_IDS))


@dataclass(frozen=True, eq=False)
class Clusters:
    """Hierarchical clusters of categories at distance 1 - cosine, from a square map of cosines."""

    cosines: pd.DataFrame

    def __post_init__(self) -> None:
        """Raise `ValueError` unless rows and columns name the same categories."""
        same, must = self.cosines.index.equals(self.cosines.columns), "rows and columns must be the same categories"
        require(same, "Clusters", must, self.cosines.shape, "Pass a full cosine matrix.")

    @property
    def similarities(self) -> np.ndarray:
        """The cosines made symmetric (a published table is rounded and not quite symmetric)."""
        values = self.cosines.to_numpy(dtype=float)
        return (values + values.T) / 2

    @property
    def distances(self) -> np.ndarray:
        """1 - cosine, not negative, with zeros on the diagonal."""
        distances = (1 - self.similarities).clip(0)
        np.fill_diagonal(distances, 0)
        return distances

    def tree(self, method: str = "average") -> np.ndarray:
        """The linkage matrix, in scipy's form."""
        return linkage(squareform(self.distances, checks=False), method)

    def cut(self, n_clusters: int, method: str = "average") -> pd.Series:
        """The cluster number (from 1) of every category if the tree is cut into `n_clusters`."""
        numbers = fcluster(self.tree(method), n_clusters, criterion="maxclust")
        return pd.Series(numbers, index=self.cosines.index, name="cluster")

    def silhouettes(self, n_clusters: Sequence[int] = (2, 3, 4, 5, 6)) -> pd.DataFrame:
        """The mean silhouette of each number of clusters (rows) under each linkage (columns).

        Only numbers below that of the categories are tried.

        Near 1, clusters are tight and far apart; near 0, there are none. Source: Rousseeuw 1987 (scikit-learn's
        implementation).
        """

        def score(n: int, method: str) -> float:
            return silhouette_score(self.distances, self.cut(n, method), metric="precomputed")

        n_clusters = [n for n in n_clusters if n < len(self.cosines)]
        scores = {method: [score(n, method) for n in n_clusters] for method in LINKAGES}
        return pd.DataFrame(scores, index=pd.Index(n_clusters, name="n_clusters"))

    def embed(self, n_axes: int = 2) -> pd.DataFrame:
        """Coordinates of the categories by classical scaling; `attrs["share"]` is the share of the spread they keep.

        Unit directions at cosine c are sqrt(2 - 2c) apart, an exactly Euclidean distance, so the view loses only what
        is on the dropped axes. Source: Torgerson 1952, computed as kernel PCA of the cosines (scikit-learn).
        """
        scaling = KernelPCA(kernel="precomputed")
        points = scaling.fit_transform(self.similarities)[:, :n_axes]
        points = np.pad(points, ((0, 0), (0, n_axes - points.shape[1])))  # three directions span two axes only
        frame = pd.DataFrame(points, self.cosines.index, [f"axis {number + 1}" for number in range(n_axes)])
        frame.attrs["share"] = float(scaling.eigenvalues_[:n_axes].sum() / scaling.eigenvalues_.sum())
        return frame

    def map_figure(self, model: str, place: str, n_axes: int = 2) -> go.Figure:
        """`embed` as a map with two or three axes of equal scale; `place` names hook, layer and position."""
        frame = self.embed(n_axes)
        share = f"{frame.attrs['share']:.0%} of their spread"
        number = {11: "eleven"}.get(len(frame), len(frame))
        title = f"The {number} directions in {n_axes} dimensions: {share} ({model} model, {place})"
        points = frame.rename_axis("category").reset_index()
        if n_axes == 2:
            return category_scatter(points, *frame, title=title).update_yaxes(scaleanchor="x")
        named = points.assign(category=titles(list(frame.index)))
        figure = px.scatter_3d(named, *frame, color="category", symbol="category", title=title, **POINT_LOOK)
        camera = {"eye": {"x": 1.5, "y": 1.5, "z": 1.1}, "center": {"x": 0, "y": 0, "z": -0.2}}
        figure.update_layout(height=760, scene={"aspectmode": "cube", "camera": camera}, margin={"t": 60, "b": 20})
        return figure.update_traces(marker_size=7)

    def figure(self, model: str, place: str) -> go.Figure:
        """The tree under average linkage."""
        title = f"Which directions are alike: a tree of their cosines ({model} model)"
        x = f"distance 1 - cosine, {place}, average linkage"
        return tree_figure(self.tree(), titles(list(self.cosines.index)), title=title, x=x)
