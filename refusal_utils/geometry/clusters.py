"""Which categories belong together: hierarchical clustering, silhouettes and a map of a matrix of cosines."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import silhouette_score


def cluster_tree(cosines: pd.DataFrame, method: str = "average") -> np.ndarray:
    """The linkage matrix (scipy's form) of the categories at distance 1 - cosine, by `method` average or complete.

    Raises `ValueError` for another method, or where the matrix is not square with the same names on both sides.
    """
    if method not in ("average", "complete"):
        raise ValueError(f"cluster_tree: the method must be average or complete; got {method!r}. Use one of the two.")
    return linkage(squareform(_distances("cluster_tree", cosines), checks=False), method)


def cut_tree(cosines: pd.DataFrame, n_clusters: int, method: str = "average") -> pd.Series:
    """The cluster number (from 1) of every category when the tree is cut into `n_clusters`."""
    numbers = fcluster(cluster_tree(cosines, method), n_clusters, criterion="maxclust")
    return pd.Series(numbers, index=cosines.index, name="cluster")


def silhouettes(cosines: pd.DataFrame, n_clusters: Sequence[int] = (2, 3, 4, 5, 6)) -> pd.DataFrame:
    """The mean silhouette of each number of clusters (rows) under average and complete linkage (columns).

    Near 1: tight clusters far apart; 0: none. Source: Rousseeuw 1987, as implemented in scikit-learn.
    """
    distances = _distances("silhouettes", cosines)
    scores = {
        method: [silhouette_score(distances, cut_tree(cosines, n, method), metric="precomputed") for n in n_clusters]
        for method in ("average", "complete")
    }
    return pd.DataFrame(scores, index=pd.Index(n_clusters, name="n_clusters"))


def classical_mds(cosines: pd.DataFrame, n_axes: int = 2) -> pd.DataFrame:
    """Coordinates of the categories whose distances are as close as `n_axes` allow to those of the unit directions.

    Unit directions at cosine c lie sqrt(2 - 2c) apart, an exactly Euclidean distance, so the classical solution loses
    only what the dropped axes hold: column attribute `attrs["share"]` is the share kept. Source: Torgerson 1952.
    """
    _distances("classical_mds", cosines)
    n = len(cosines)
    centring = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(centring @ _symmetric(cosines) @ centring)
    kept = np.argsort(values)[::-1][:n_axes]
    columns = [f"axis {number + 1}" for number in range(n_axes)]
    frame = pd.DataFrame(vectors[:, kept] * np.sqrt(values[kept].clip(0)), index=cosines.index, columns=columns)
    frame.attrs["share"] = float(values[kept].clip(0).sum() / values.clip(0).sum())
    return frame


def _distances(function: str, cosines: pd.DataFrame) -> np.ndarray:
    if list(cosines.index) != list(cosines.columns):
        raise ValueError(
            f"{function}: rows and columns must be the same categories; got {cosines.shape}. Pass a full cosine matrix."
        )
    distances = 1 - _symmetric(cosines)
    np.fill_diagonal(distances, 0)
    return distances.clip(0)


def _symmetric(cosines: pd.DataFrame) -> np.ndarray:
    # The published table is rounded, and not quite symmetric.
    values = cosines.to_numpy(dtype=float)
    return (values + values.T) / 2
