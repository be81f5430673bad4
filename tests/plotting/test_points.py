import numpy as np
import pandas as pd
import pytest

from refusal_utils.plotting.points import (
    add_arrows,
    coordinate_slider,
    embedding_scatter,
    label_shifts,
    projection_scatter,
)
from refusal_utils.prompts.categories import CATEGORIES, category_by_id


def prompts(n: int = 30) -> pd.DataFrame:
    rows = [(f"{name}-{number}", name) for name in ("benign", "advice", "humanizing") for number in range(n // 3)]
    frame = pd.DataFrame(rows, columns=["id", "category"])
    frame["outcome"] = np.where(np.arange(n) % 2, "refused", "answered")
    generator = np.random.default_rng(0)
    return frame.assign(a=generator.normal(size=n), b=generator.normal(size=n), c=generator.normal(size=n))


def with_points(figure):
    """The traces that draw prompts; the others are the legend's."""
    return [trace for trace in figure.data if trace.text is not None]


def test_embedding_scatter_draws_every_prompt_once_filled_where_refused():
    frame = prompts().sample(frac=1, random_state=1)
    for axes in (["a", "b"], ["a", "b", "c"]):
        figure = embedding_scatter(frame, *axes, where="here", title="t")
        own = with_points(figure)
        assert sum(len(trace.x) for trace in own) == len(frame)
        drawn = {text.split("<br>")[0]: x for trace in own for text, x in zip(trace.text, trace.x, strict=True)}
        assert drawn == pytest.approx(frame.set_index("id")["a"].to_dict(), abs=1e-3)
        symbols = [
            (text, symbol) for trace in own for text, symbol in zip(trace.text, trace.marker.symbol, strict=True)
        ]
        assert all(("refused" in text) != symbol.endswith("-open") for text, symbol in symbols)


def test_the_legend_shows_each_category_once_and_filled_whatever_its_first_prompt_did():
    frame = prompts().assign(outcome="answered")
    frame.loc[frame["id"] == "advice-3", "outcome"] = "refused"
    for axes in (["a", "b"], ["a", "b", "c"]):
        figure = embedding_scatter(frame, *axes, where="here", title="t")
        assert with_points(figure)[1].marker.symbol[0] == "circle-open"  # before control: what a legend would go by
        legend = [trace for trace in figure.data if trace.showlegend is not False]
        assert [trace.name for trace in legend] == ["Benign", "Unqualified advice", "Humanizing"]
        assert [trace.marker.symbol for trace in legend] == ["circle", "circle", category_by_id("humanizing").marker]
        assert all(set(trace.x) == {None} for trace in legend)
        assert [trace.legendgroup for trace in legend] == [trace.legendgroup for trace in with_points(figure)]
        only = figure.layout.updatemenus[0].buttons[2].args[0]["visible"]
        assert [name for name, on in zip((t.name for t in figure.data), only, strict=True) if on] == [
            "Benign",
            "Unqualified advice",
        ] * 2


def lie_on_another(places: np.ndarray, shifts: list[int], labels: list[str]) -> int:
    """How many pairs of labels overlap, as boxes of 5.5 pixels a character and 13 in height."""
    boxes = [
        (x - 2.75 * len(label), y + up - 6.5, x + 2.75 * len(label), y + up + 6.5)
        for (x, y), up, label in zip(places, shifts, labels, strict=True)
    ]
    pairs = [(one, two) for number, one in enumerate(boxes) for two in boxes[:number]]
    return sum(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for a, b in pairs)


def test_labels_are_shifted_off_each_other_and_no_further():
    labels = [category.title for category in CATEGORIES]
    for seed, spread in enumerate((0, 20, 60)):
        places = np.random.default_rng(seed).normal(size=(11, 2)) * spread
        assert lie_on_another(places, [9] * 11, labels) > 0  # before control
        assert lie_on_another(places, label_shifts(places, labels), labels) == 0
    apart = np.stack([np.zeros(11), 40.0 * np.arange(11)], axis=1)
    assert label_shifts(apart, labels) == [9] * 11


def test_arrows_end_at_their_tips_and_their_titles_do_not_overprint():
    figure = embedding_scatter(prompts(), "a", "b", where="here", title="t")
    tips = np.random.default_rng(1).normal(size=(11, 2))
    tips[5] = tips[4] + 1e-3
    add_arrows(figure, np.zeros(2), tips)
    arrows = [each for each in figure.layout.annotations if each.showarrow]
    names = [each for each in figure.layout.annotations if each.yshift]
    assert [(each.x, each.y, each.ax, each.ay) for each in arrows] == [(x, y, 0, 0) for x, y in tips]
    assert [each.text for each in names] == [category.title for category in CATEGORIES]
    assert names[4].yshift != names[5].yshift


def test_the_slider_moves_each_prompt_to_its_own_place():
    frame = prompts().sample(frac=1, random_state=2).reset_index(drop=True)
    figure = embedding_scatter(frame, "a", "b", where="here", title="t")
    moved = np.stack([np.arange(30.0), -np.arange(30.0)], axis=1)
    coordinate_slider(figure, frame, {"0": frame[["a", "b"]].to_numpy(), "1": moved}, 0, "layer ")
    args, traces = figure.layout.sliders[0].steps[1].args
    place = {
        text.split("<br>")[0]: x
        for trace, xs in zip((figure.data[index] for index in traces), args["x"], strict=True)
        for text, x in zip(trace.text, xs, strict=True)
    }
    assert place == dict(zip(frame["id"], moved[:, 0], strict=True))


def test_the_menus_of_the_projections_move_points_and_margins_together():
    frame = prompts()
    projected = pd.DataFrame(frame[["a", "b"]].to_numpy(), columns=["advice", "humanizing"])
    figure = projection_scatter(frame, projected, where="here", title="t")
    for menu, axis, column in zip(figure.layout.updatemenus, "xy", ("advice", "humanizing"), strict=True):
        values, _, traces = menu.buttons[list(projected).index(column)].args
        shown = [figure.data[index] for index in traces]
        assert {type(trace).__name__ for trace in shown} == {"Scatter", "Histogram"}
        assert all(np.allclose(trace[axis], moved) for trace, moved in zip(shown, values[axis], strict=True))


def test_the_margins_count_all_outcomes_in_the_same_bins_whatever_the_menus_show():
    frame = prompts(300).assign(outcome=["answered", "refused", "refused"] * 100)
    projected = pd.DataFrame(
        np.random.default_rng(0).normal(size=(300, 11)) * np.linspace(0.5, 3, 11),
        columns=[category.id for category in CATEGORIES],
    )
    figure = projection_scatter(frame, projected, where="here", title="t")
    margins = [trace for trace in figure.data if trace.type == "histogram"]
    bins = [trace.xbins if trace.yaxis == "y2" else trace.ybins for trace in margins]
    assert len(bins) == 4
    assert len({(each.start, each.end, each.size) for each in bins}) == 1
    edges = np.arange(bins[0].start, bins[0].end + bins[0].size / 2, bins[0].size)
    for button, column in zip(figure.layout.updatemenus[0].buttons, projected, strict=True):
        for outcome, moved in zip(("refused", "answered"), button.args[0]["x"][::2], strict=True):
            exact = projected.loc[frame["outcome"] == outcome, column]
            assert np.abs(exact - moved).max() < 0.01 * np.ptp(projected[column])
            assert np.histogram(moved, edges)[0].sum() == len(exact)
            assert np.abs(np.array(moved)[:, None] - edges).min() > 1e-6  # none on an edge, where rounding decides
    assert (figure.layout.xaxis2.title.text, figure.layout.yaxis2.title.text) == ("prompts", "prompts")
    assert figure.layout.xaxis2.showticklabels is not False
    assert figure.layout.yaxis2.showticklabels is not False
