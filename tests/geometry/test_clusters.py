"""The published clustering of the paper's Table 1, and maps whose answer is known."""

import numpy as np
import pandas as pd
import pytest
import torch

from refusal_utils.directions.comparison import cosine_frame, cosine_matrix
from refusal_utils.geometry.clusters import Clusters
from refusal_utils.paper.tables import published_cosines
from refusal_utils.prompts.categories import CATEGORIES

# Joad et al., public release: silhouettes of Table 1 for 2 to 6 clusters.
PUBLISHED = {"average": [0.449, 0.343, 0.286, 0.291, 0.276], "complete": [0.449, 0.358, 0.327, 0.311, 0.276]}


@pytest.mark.parametrize("method", ["average", "complete"])
def test_table_1_gives_the_published_silhouettes_and_clusters(method):
    table_1 = Clusters(published_cosines())
    assert table_1.silhouettes()[method].round(3).tolist() == PUBLISHED[method]
    found = table_1.cut(2, method).groupby({category.id: category.cluster for category in CATEGORIES})
    assert found.nunique().tolist() == [1, 1]
    assert found.first().nunique() == 2


def test_embed_keeps_the_distances_of_directions_in_a_plane():
    angles = torch.tensor([0.0, 0.4, 1.0, 2.5])
    directions = torch.stack([angles.cos(), angles.sin()], dim=1)
    clusters = Clusters(cosine_frame(directions, "abcd"))
    frame = clusters.embed(2)
    placed = torch.tensor(frame.to_numpy())
    assert frame.attrs["share"] == pytest.approx(1.0, abs=1e-5)
    assert torch.allclose(torch.cdist(placed, placed).float(), torch.cdist(directions, directions), atol=1e-3)
    assert clusters.embed(1).attrs["share"] < 0.99  # before control: a line does not hold them


def test_embed_is_torgersons_solution():
    cosines = cosine_matrix(torch.randn(6, 9, generator=torch.Generator().manual_seed(0))).double().numpy()
    centring = np.eye(6) - 1 / 6
    values, vectors = np.linalg.eigh(centring @ cosines @ centring)
    expected = vectors[:, ::-1][:, :3] * np.sqrt(values[::-1][:3])
    found = Clusters(pd.DataFrame(cosines)).embed(3)
    np.testing.assert_allclose(np.abs(found.to_numpy()), np.abs(expected), atol=1e-9)
    assert found.attrs["share"] == pytest.approx(values[::-1][:3].sum() / values.sum())


def test_three_directions_span_a_plane_so_their_third_coordinate_is_zero():
    clusters = Clusters(
        cosine_frame(torch.eye(3) + torch.eye(3)[[1, 2, 2]] / 5, ["advice", "humanizing", "incomplete"])
    )
    placed = clusters.embed(3)
    assert placed.iloc[:, 2].abs().max() < 1e-6
    assert placed.iloc[:, :2].abs().max().min() > 0.1
    assert "The 3 directions" in clusters.map_figure("m", "layer 6", 3).layout.title.text
    assert list(clusters.silhouettes().index) == [2]


def test_the_figure_names_the_leaves():
    figure = Clusters(published_cosines()).figure("bundled", "layer 6")
    assert set(figure.layout.yaxis.ticktext) == {category.title for category in CATEGORIES}


def test_rows_and_columns_in_different_orders_are_refused():
    with pytest.raises(ValueError, match="^Clusters: rows and columns must be the same categories"):
        Clusters(published_cosines().iloc[:, ::-1])


def test_maps_hold_every_category_at_its_coordinates():
    clusters = Clusters(published_cosines())
    for n_axes in (2, 3):
        figure = clusters.map_figure("bundled", "layer 6", n_axes)
        placed = {trace.name: (trace.x[0], trace.y[0]) for trace in figure.data}
        coordinates = clusters.embed(n_axes).loc["advice"]
        assert placed["Unqualified advice"] == pytest.approx(tuple(coordinates[:2]))
        assert len(placed) == 11
