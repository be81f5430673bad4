import pandas as pd

from refusal_utils.paper.tables import published_pool_sizes
from refusal_utils.plotting.prompts import length_boxes, size_bars
from refusal_utils.prompts.categories import ALL_CATEGORIES, CATEGORIES, CATEGORY_IDS

TITLES = [category.title for category in CATEGORIES]


def test_size_bars_show_every_column_and_the_pools_over_their_categories():
    frame = pd.DataFrame({"ours, train": range(11), "ours, eval": range(11, 22)}, index=list(CATEGORY_IDS))
    figure = size_bars(frame, published_pool_sizes().rename("paper"), title="t")
    bars = {trace.name: list(trace.y) for trace in figure.data if trace.type == "bar"}
    assert bars == {name: frame[name].tolist() for name in frame}
    assert len({trace.marker.color for trace in figure.data[:2]}) == 2
    marks = dict(zip(figure.data[2].x, figure.data[2].y, strict=True))
    assert marks == dict(zip(TITLES, published_pool_sizes(), strict=True))
    assert (figure.layout.yaxis.type, figure.layout.yaxis.title.text) == ("log", "prompts (log scale)")


def test_length_boxes_hold_the_values_of_their_own_category():
    figure = length_boxes(pd.DataFrame({"category": [*ALL_CATEGORIES] * 2, "words": range(24)}), title="t")
    assert [trace.name for trace in figure.data] == [*TITLES, "Benign"]
    assert [list(trace.y) for trace in figure.data] == [[number, number + 12] for number in range(12)]
    assert [trace.marker.color for trace in figure.data] == [*(each.colour for each in CATEGORIES), "#999999"]
