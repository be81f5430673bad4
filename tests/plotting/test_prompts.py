import pandas as pd

from refusal_utils.paper.tables import published_pool_sizes
from refusal_utils.plotting import prompts as prompts_figures
from refusal_utils.prompts.categories import BENIGN, CATEGORIES, CATEGORY_IDS

TITLES = [category.title for category in CATEGORIES]


def test_category_bars_draw_every_column_and_the_marks_over_their_categories():
    frame = pd.DataFrame({"ours, train": range(11), "ours, eval": range(11, 22)}, index=list(CATEGORY_IDS))
    figure = prompts_figures.category_bars(frame, published_pool_sizes().rename("paper"), title="t", y="prompts")
    bars = {trace.name: list(trace.y) for trace in figure.data if trace.type == "bar"}
    assert bars == {name: frame[name].tolist() for name in frame}
    assert len({trace.marker.color for trace in figure.data[:2]}) == 2
    marks = dict(zip(figure.data[2].x, figure.data[2].y, strict=True))
    assert marks == dict(zip(TITLES, published_pool_sizes(), strict=True))
    assert (figure.layout.yaxis.type, figure.layout.yaxis.title.text) == ("log", "prompts (log scale)")


def test_category_boxes_hold_the_values_of_their_own_category():
    frame = pd.DataFrame({"category": [*CATEGORY_IDS, BENIGN] * 2, "words": range(24)})
    figure = prompts_figures.category_boxes(frame, "words", title="t", y="words in the prompt")
    assert [trace.name for trace in figure.data] == [*TITLES, "Benign"]
    assert [list(trace.y) for trace in figure.data] == [[number, number + 12] for number in range(12)]
    assert [trace.marker.color for trace in figure.data] == [*(each.colour for each in CATEGORIES), "#999999"]
