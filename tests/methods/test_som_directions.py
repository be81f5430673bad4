import numpy as np
import pytest
import torch
from minisom import MiniSom

from refusal_utils.methods.som_directions import som_map

D_MODEL, N_EACH = 12, 30


@pytest.fixture(scope="module")
def clusters():
    """Refused states in three clusters of different sizes far from each other, and answered states at the origin."""
    draw = torch.Generator().manual_seed(3)
    centres = 8 * torch.eye(D_MODEL)[:3]
    refused = {
        name: centre + 0.3 * torch.randn(n, D_MODEL, generator=draw)
        for name, centre, n in zip("abc", centres, (45, 30, 15), strict=True)
    }
    return refused, 0.3 * torch.randn(40, D_MODEL, generator=draw), centres


def trained_by_hand(states, rows, columns, steps, sigma, rate, seed):
    """The map by its formulas in plain numpy, with the random choices in MiniSom's order."""
    states = states.double().numpy()
    states = states[np.argsort(np.linalg.norm(states - states.mean(0), axis=1), kind="stable")]
    random = np.random.RandomState(seed)
    random.rand(columns, rows, states.shape[1])
    weights = np.stack([states[random.randint(len(states))] for _ in range(columns * rows)])
    indices = np.arange(steps) % len(states)
    random.shuffle(indices)
    y, x = np.meshgrid(np.arange(rows, dtype=float), np.arange(columns, dtype=float))
    x[:, ::-2] -= 0.5
    x, y = x.ravel(), y.ravel() * np.sqrt(3) / 2
    for t, index in enumerate(indices):
        decay = 1 / (1 + 2 * t / steps)
        own = np.linalg.norm(weights - states[index], axis=1).argmin()
        width = 2 * (sigma * decay) ** 2
        near = np.exp(-((x - x[own]) ** 2) / width) * np.exp(-((y - y[own]) ** 2) / width)
        weights += rate * decay * near[:, None] * (states[index] - weights)
    return weights


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_the_map_is_that_of_its_formulas(clusters, sigma):
    refused, answered, _ = clusters
    given = {"rows": 4, "columns": 3, "steps": 400, "sigma": sigma, "learning_rate": 0.2, "seed": 5}
    expected = trained_by_hand(torch.cat([*refused.values()]), *given.values())
    found = som_map(refused, answered, **given)
    np.testing.assert_allclose(found.neurons.numpy(), expected, atol=1e-5)


def test_neurons_find_the_clusters_and_directions_are_ordered_by_the_prompts_they_win(clusters):
    refused, answered, centres = clusters
    found = som_map(refused, answered)
    vectors = torch.stack([*found.differences.values()])
    assert list(found.differences) == [f"som_{rank}" for rank in range(1, len(vectors) + 1)]
    cosines = torch.nn.functional.cosine_similarity(vectors[:, None], centres[None], dim=-1)
    assert cosines.amax(0).min() > 0.98
    wins = found.table()["prompts won"]
    assert wins.sum() == 90
    ranked = [wins[name] for name in found.differences]
    assert ranked == sorted(ranked, reverse=True)
    assert (found.wins > 0).sum() == len(vectors)
    assert found.quantisation_error < 0.3 * D_MODEL**0.5 < 3  # below the spread of a cluster
    coarse = som_map(refused, answered, rows=1, columns=1)
    assert coarse.quantisation_error > 3
    assert [*coarse.differences] == ["som_1"]
    assert coarse.distances.tolist() == [0.0]


def test_neurons_that_win_nothing_are_absent(clusters):
    refused, answered, _ = clusters
    few = {name: states[:2] for name, states in refused.items()}
    found = som_map(few, answered)
    assert 0 < len(found.differences) <= 6
    assert (found.table().index == "").sum() == 16 - len(found.differences)


def test_the_u_matrix_is_minisoms_and_the_figure_shows_it(clusters):
    refused, answered, _ = clusters
    found = som_map(refused, answered, rows=5, sigma=1.0)  # MiniSom takes other neighbours if rows are even
    som = MiniSom(4, 5, D_MODEL, topology="hexagonal")
    som._weights = found.neurons.double().numpy().reshape(4, 5, -1)
    expected = som.distance_map(scaling="mean").ravel()
    np.testing.assert_allclose(found.distances / found.distances.max(), expected, rtol=1e-4)
    figure = found.figure("tiny", "resid_pre, layer 3, pos -1")
    assert "tiny" in figure.layout.title.text
    np.testing.assert_allclose(np.array(figure.data[0].marker.color, dtype=float), found.distances, rtol=1e-6)
    assert [button.label for button in figure.layout.updatemenus[0].buttons] == [
        "distance to neighbours",
        "prompts won",
    ]
