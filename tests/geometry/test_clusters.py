"""The published clustering of the paper's Table 1, and maps of matrices whose answer is known."""

import numpy as np
import pandas as pd
import pytest
import torch

from refusal_utils.directions.comparison import cosine_matrix
from refusal_utils.geometry.clusters import classical_mds, cluster_tree, cut_tree, silhouettes
from refusal_utils.geometry.subspaces import common_axis, effective_rank, participation_ratio, principal_angles
from refusal_utils.paper.tables import published_cosines
from refusal_utils.prompts.categories import CATEGORIES

# Joad et al., public release: silhouettes of Table 1 for 2 to 6 clusters.
PUBLISHED = {"average": [0.449, 0.343, 0.286, 0.291, 0.276], "complete": [0.449, 0.358, 0.327, 0.311, 0.276]}


@pytest.mark.parametrize("method", ["average", "complete"])
def test_table_1_gives_the_published_silhouettes(method):
    assert silhouettes(published_cosines())[method].round(3).tolist() == PUBLISHED[method]


@pytest.mark.parametrize("method", ["average", "complete"])
def test_table_1_gives_the_published_clusters(method):
    found = cut_tree(published_cosines(), 2, method).groupby(
        lambda id: next(c.cluster for c in CATEGORIES if c.id == id)
    )
    assert found.nunique().tolist() == [1, 1]
    assert found.first().nunique() == 2


def test_mds_keeps_the_distances_of_directions_in_a_plane():
    angles = torch.tensor([0.0, 0.4, 1.0, 2.5])
    directions = torch.stack([angles.cos(), angles.sin()], dim=1)
    names = list("abcd")
    frame = classical_mds(pd.DataFrame(cosine_matrix(directions).numpy(), names, names))
    placed = torch.tensor(frame.to_numpy())
    assert frame.attrs["share"] == pytest.approx(1.0, abs=1e-5)
    assert torch.allclose(torch.cdist(placed, placed).float(), torch.cdist(directions, directions), atol=1e-3)


def test_bad_matrices_and_methods_are_refused():
    with pytest.raises(ValueError, match="^cluster_tree: the method must be average or complete; got 'ward'"):
        cluster_tree(published_cosines(), "ward")
    with pytest.raises(ValueError, match="^silhouettes: rows and columns must be the same categories"):
        silhouettes(published_cosines().iloc[:, ::-1])


def test_rank_and_participation_count_the_dimensions():
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(50, 4, generator=generator))[0].T
    mixed = axes[[0, 1, 2, 3, 0, 1, 2, 3]]
    assert effective_rank(mixed) == pytest.approx(4.0, abs=1e-4)
    assert participation_ratio(mixed) == pytest.approx(4.0, abs=1e-4)
    assert effective_rank(axes[[0, 0, 0]]) == pytest.approx(1.0, abs=1e-3)


def test_the_common_axis_is_the_planted_one():
    generator = torch.Generator().manual_seed(1)
    axes = torch.linalg.qr(torch.randn(50, 7, generator=generator))[0].T
    directions = 0.8 * axes[0] + 0.6 * axes[1:]
    axis, share = common_axis(directions)
    # The sum of the six: 4.8 along the planted axis, 0.6 along each of six others.
    assert float(axis @ axes[0]) == pytest.approx(4.8 / (4.8**2 + 6 * 0.6**2) ** 0.5, abs=1e-4)
    # Every pair has cosine 0.64, so the largest of the 6 eigenvalues is 1 + 5 * 0.64.
    assert share == pytest.approx((1 + 5 * 0.64) / 6, abs=1e-4)


def test_principal_angles_are_the_planted_ones():
    axes = torch.eye(6)
    turned = torch.stack([axes[0], np.cos(0.5) * axes[1] + np.sin(0.5) * axes[2]])
    assert principal_angles(axes[:2], turned).tolist() == pytest.approx([0.0, np.degrees(0.5)], abs=1e-3)
