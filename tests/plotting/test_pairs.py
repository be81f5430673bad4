import numpy as np
import pandas as pd
import pytest
import torch

from refusal_utils.geometry import clusters, profiles
from refusal_utils.paper.tables import published_cosines
from refusal_utils.plotting import pairs as pairs_figures
from refusal_utils.prompts.categories import CATEGORIES, CATEGORY_IDS

TITLES = [category.title for category in CATEGORIES]


@pytest.fixture
def pairs() -> pd.DataFrame:
    frame = pd.DataFrame({"pair": ["a / b", "a / c"], "raw": [0.4, 0.7], "corrected": [0.5, 0.8]})
    return frame.assign(low=[0.3, 0.75], high=[0.6, 0.95], published=[0.1, 0.2])


def test_heatmap_panels_stand_side_by_side_under_one_colour_bar():
    first, second = published_cosines(), published_cosines() / 2
    figure = pairs_figures.heatmap_panels({"one": first, "other": second}, ["cosine near", "cosine far"], title="t")
    assert [note.text for note in figure.layout.annotations] == ["one", "other"]
    for trace, frame in zip(figure.data, (first, second), strict=True):
        np.testing.assert_allclose(np.array(trace.z), frame.to_numpy(), atol=1e-4)
    assert [trace.showscale for trace in figure.data] == [False, True]
    assert [trace.xaxis for trace in figure.data] == ["x", "x2"]
    assert [value in trace.hovertemplate for trace in figure.data for value in ("near", "far")] == [1, 0, 0, 1]
    with pytest.raises(ValueError, match="every panel must have a value; got 1 for 2"):
        pairs_figures.heatmap_panels({"one": first, "other": second}, ["cosine"], title="t")


def test_heatmap_slider_shows_one_layer_and_each_step_another():
    frames = {layer: published_cosines() / layer for layer in (1, 2, 4)}
    figure = pairs_figures.heatmap_slider(frames, 2, title="t", value="cosine")
    assert [trace.visible for trace in figure.data] == [False, True, False]
    slider = figure.layout.sliders[0]
    assert slider.active == 1
    for step, layer in zip(slider.steps, frames, strict=True):
        (shown,) = np.flatnonzero(step.args[0]["visible"])
        assert step.label == str(layer)
        np.testing.assert_allclose(np.array(figure.data[shown].z), frames[layer].to_numpy(), atol=1e-4)


def test_pair_map_puts_every_pair_on_both_sides_of_ones():
    known = published_cosines()
    symmetric = (known + known.T) / 2
    index = pd.MultiIndex.from_tuples([(a, b) for i, a in enumerate(CATEGORY_IDS) for b in CATEGORY_IDS[i + 1 :]])
    values = pd.Series([symmetric.loc[pair] for pair in index], index=index)
    found = pairs_figures.pair_map(values.sample(frac=1, random_state=0))
    np.testing.assert_allclose(found.to_numpy(), symmetric.to_numpy(), atol=1e-9)
    assert list(found.index) == list(found.columns) == list(CATEGORY_IDS)


def test_pair_map_leaves_unknown_pairs_empty_and_other_directions_out():
    first, second, third = CATEGORY_IDS[:3]
    pairs = {
        (second, first): 0.1,
        (first, third): float("nan"),
        (first, "random 0"): 0.4,
        ("random 0", "random 1"): 0.2,
    }
    found = pairs_figures.pair_map(pd.Series(pairs), diagonal=0.0)
    assert found.loc[first, second] == found.loc[second, first] == 0.1
    assert np.diag(found).tolist() == [0.0] * len(CATEGORY_IDS)
    assert found.notna().to_numpy().sum() == 2 + len(CATEGORY_IDS)


def test_pair_intervals_draw_low_and_high_around_the_corrected_cosine(pairs):
    corrected, plain = pairs_figures.pair_intervals(pairs, title="t", x="cosine").data
    np.testing.assert_allclose(np.array(corrected.x) + corrected.error_x.array, pairs["high"])
    np.testing.assert_allclose(np.array(corrected.x) - corrected.error_x.arrayminus, pairs["low"])
    assert list(corrected.y) == list(plain.y) == pairs["pair"].tolist()
    assert list(plain.x) == pairs["raw"].tolist()


def test_pair_scatter_has_the_published_cosines_across(pairs):
    figure = pairs_figures.pair_scatter(pairs, title="t", x="Gemma", y="here")
    points = figure.data[0]
    assert list(zip(points.text, points.x, points.y, strict=True)) == [("a / b", 0.1, 0.4), ("a / c", 0.2, 0.7)]
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("Gemma", "here")


def test_tree_figure_joins_the_nearest_categories_first_and_names_the_leaves():
    cosines = pd.DataFrame([[1, 0.9, 0.1], [0.9, 1, 0.2], [0.1, 0.2, 1]], index=list("abc"), columns=list("abc"))
    figure = pairs_figures.tree_figure(clusters.cluster_tree(cosines), ["a", "b", "c"], title="t", x="distance")
    heights = sorted(max(trace.x) for trace in figure.data)
    assert heights == pytest.approx([0.1, 0.85])  # 1 - 0.9, and 1 less the mean of 0.1 and 0.2
    leaves = dict(zip(figure.layout.yaxis.tickvals, figure.layout.yaxis.ticktext, strict=True))
    nearest = min(figure.data, key=lambda trace: max(trace.x))
    assert {leaves[place] for place in nearest.y} == {"a", "b"}


def test_pair_map_is_the_map_that_a_pair_table_was_read_from():
    generator = np.random.default_rng(0)
    sides = {name: torch.tensor(generator.normal(size=(8, 40)), dtype=torch.float32) for name in (*CATEGORY_IDS, "x")}
    answered = sides.pop("x")
    table = profiles.pair_table(sides, answered, n_draws=10, n_null=10)
    expected = profiles.cosine_frame(profiles.unit_directions(sides, answered), list(CATEGORY_IDS))
    np.testing.assert_allclose(pairs_figures.pair_map(table["raw"]).to_numpy(), expected.to_numpy(), atol=1e-5)
