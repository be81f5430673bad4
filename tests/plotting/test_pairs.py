import numpy as np
import pandas as pd
import pytest

from refusal_utils.geometry.clusters import Clusters
from refusal_utils.paper.tables import published_cosines
from refusal_utils.plotting.pairs import (
    CLUSTER_COLOURS,
    heatmap_panels,
    heatmap_slider,
    pair_intervals,
    pair_map,
    pair_scatter,
    tree_figure,
)
from refusal_utils.prompts.categories import CATEGORY_IDS


@pytest.fixture
def pairs() -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples([("advice", "hate_speech"), ("advice", "humanizing")], names=["first", "second"])
    frame = pd.DataFrame({"pair": ["a / b", "a / c"], "raw": [0.4, 0.7], "corrected": [0.5, 0.8]}, index)
    return frame.assign(low=[0.3, 0.75], high=[0.6, 0.95], published=[0.1, 0.2])


def test_heatmap_panels_share_one_colour_bar_and_the_labels_on_the_left():
    first, second = published_cosines(), published_cosines() / 2
    figure = heatmap_panels({"one": first, "other": second}, value="cosine near", title="t")
    assert [note.text for note in figure.layout.annotations] == ["one", "other"]
    for trace, frame in zip(figure.data, (first, second), strict=True):
        np.testing.assert_allclose(trace.z, frame.to_numpy(), atol=1e-4)
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"}
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-1, 1)
    assert (figure.layout.yaxis.showticklabels, figure.layout.yaxis2.showticklabels) == (None, False)


def test_heatmap_slider_begins_at_the_active_layer_and_each_step_shows_another():
    frames = {layer: published_cosines() / layer for layer in (1, 2, 4)}
    figure = heatmap_slider(frames, 2, title="t", value="cosine")
    np.testing.assert_allclose(figure.data[0].z, frames[2].to_numpy(), atol=1e-4)
    slider = figure.layout.sliders[0]
    assert slider.active == 1
    assert not figure.frames  # a browser complains when they are interrupted
    for step, layer in zip(slider.steps, frames, strict=True):
        assert (step.label, step.method) == (str(layer), "restyle")
        np.testing.assert_allclose(step.args[0]["z"][0], frames[layer].to_numpy(), atol=1e-4)


def test_pair_map_puts_every_pair_on_both_sides_of_ones():
    known = published_cosines()
    symmetric = (known + known.T) / 2
    index = pd.MultiIndex.from_tuples([(a, b) for i, a in enumerate(CATEGORY_IDS) for b in CATEGORY_IDS[i + 1 :]])
    values = pd.Series([symmetric.loc[pair] for pair in index], index=index)
    found = pair_map(values.sample(frac=1, random_state=0))
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
    found = pair_map(pd.Series(pairs), diagonal=0.0)
    assert found.loc[first, second] == found.loc[second, first] == 0.1
    assert np.diag(found).tolist() == [0.0] * 3
    assert list(found) == [first, second, third]  # in the order of the eleven, and only those that have a pair
    assert found.notna().to_numpy().sum() == 2 + 3


def test_pair_intervals_draw_low_and_high_around_the_corrected_cosine(pairs):
    *corrected, plain = pair_intervals(pairs, title="t", x="cosine").data
    drawn = {trace.y[0]: trace for trace in corrected}
    for row in pairs.itertuples():
        bar = drawn[row.pair]
        assert bar.x[0] + bar.error_x.array[0] == pytest.approx(row.high)
        assert bar.x[0] - bar.error_x.arrayminus[0] == pytest.approx(row.low)
    assert list(plain.y) == pairs["pair"].tolist()
    assert list(plain.x) == pairs["raw"].tolist()
    looks = {trace.name: trace.marker.color for trace in corrected}
    assert looks == {name: CLUSTER_COLOURS[name] for name in ("within content policy", "between clusters")}


def test_pair_scatter_has_the_published_cosines_across(pairs):
    figure = pair_scatter(pairs, title="t", x="Gemma", y="here")
    points = {trace.hovertext[0]: (trace.x[0], trace.y[0]) for trace in figure.data}
    assert points == {"a / b": (0.1, 0.4), "a / c": (0.2, 0.7)}
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("Gemma", "here")


def test_tree_figure_joins_the_nearest_categories_first_and_names_the_leaves():
    cosines = pd.DataFrame([[1, 0.9, 0.1], [0.9, 1, 0.2], [0.1, 0.2, 1]], index=list("abc"), columns=list("abc"))
    figure = tree_figure(Clusters(cosines).tree(), ["a", "b", "c"], title="t", x="distance")
    heights = sorted(max(trace.x) for trace in figure.data)
    assert heights == pytest.approx([0.1, 0.85])  # 1 - 0.9, and 1 less the mean of 0.1 and 0.2
    leaves = dict(zip(figure.layout.yaxis.tickvals, figure.layout.yaxis.ticktext, strict=True))
    nearest = min(figure.data, key=lambda trace: max(trace.x))
    assert {leaves[place] for place in nearest.y} == {"a", "b"}
