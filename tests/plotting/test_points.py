import numpy as np
import pandas as pd
import pytest

from refusal_utils.plotting.points import (
    add_arrows,
    coordinate_slider,
    embedding_scatter,
    projection_scatter,
)
from refusal_utils.prompts.categories import CATEGORIES, category_by_id


def prompts(n: int = 30) -> pd.DataFrame:
    rows = [(f"{name}-{number}", name) for name in ("benign", "advice", "humanizing") for number in range(n // 3)]
    frame = pd.DataFrame(rows, columns=["id", "category"])
    frame["outcome"] = np.where(np.arange(n) % 2, "refused", "answered")
    generator = np.random.default_rng(0)
    return frame.assign(a=generator.normal(size=n), b=generator.normal(size=n), c=generator.normal(size=n))


@pytest.mark.parametrize("axes", [["a", "b"], ["a", "b", "c"]])
def test_embedding_scatter_draws_every_prompt_once_filled_if_refused(axes):
    frame = prompts().sample(frac=1, random_state=1)
    figure = embedding_scatter(frame, *axes, where="here", title="t")
    assert [trace.name for trace in figure.data] == ["Benign", "Unqualified advice", "Humanizing"]
    drawn = {id: x for trace in figure.data for id, x in zip(trace.hovertext, trace.x, strict=True)}
    assert drawn == pytest.approx(frame.set_index("id")["a"].to_dict(), abs=1e-3)
    outcomes = frame.set_index("id")["outcome"]
    for trace in figure.data:
        filled = [not symbol.endswith("-open") for symbol in trace.marker.symbol]
        assert filled == [outcomes[id] == "refused" for id in trace.hovertext]
        assert filled == sorted(filled, reverse=True)  # the legend shows the first marker: filled if any is
    assert figure.data[2].marker.symbol[0] == category_by_id("humanizing").marker


def test_axes_name_their_place_and_a_cube_does_so_in_the_subtitle():
    flat = embedding_scatter(prompts(), "a", "b", where="resid_pre, layer 6, pos -2", title="t")
    assert flat.layout.yaxis.title.text == "b, resid_pre, layer 6, pos -2"
    solid = embedding_scatter(prompts(), "a", "b", "c", where="resid_pre, layer 6, pos -2", title="t")
    assert solid.layout.scene.zaxis.title.text == "c"  # a longer title would run out of the frame
    assert "resid_pre, layer 6, pos -2" in solid.layout.title.subtitle.text


def test_the_menu_shows_one_category_with_its_arrow_and_the_benign_prompts():
    figure = embedding_scatter(prompts(), "a", "b", where="here", title="t")
    tips = np.random.default_rng(1).normal(size=(11, 2))
    few = embedding_scatter(prompts(), "a", "b", where="here", title="t")
    add_arrows(few, np.zeros(2), {"advice": tips[3]})  # a draw may leave categories out
    assert [trace.name for trace in few.data if trace.mode == "lines+markers"] == ["Unqualified advice"]
    add_arrows(figure, np.zeros(2), {each.id: tip for each, tip in zip(CATEGORIES, tips, strict=True)})
    arrows = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert [(trace.x, trace.y) for trace in arrows] == [((0, x), (0, y)) for x, y in tips]
    assert [trace.marker.color for trace in arrows] == [category.colour for category in CATEGORIES]
    (menu,) = figure.layout.updatemenus
    shown = {button.label: button.args[0]["visible"] for button in menu.buttons}
    assert all(shown["all categories"])
    drawn = [trace for trace, on in zip(figure.data, shown["Unqualified advice"], strict=True) if on]
    assert {trace.name for trace in drawn} == {"Benign", "Unqualified advice"}
    assert [trace.mode for trace in drawn] == ["markers", "markers", "lines", "lines+markers"]


def test_the_slider_moves_each_prompt_to_its_own_place():
    frame = prompts().sample(frac=1, random_state=2).reset_index(drop=True)
    figure = embedding_scatter(frame, "a", "b", where="here", title="t")
    moved = np.stack([np.arange(30.0), -np.arange(30.0)], axis=1)
    coordinate_slider(figure, frame["id"], {"0": frame[["a", "b"]].to_numpy(), "1": moved}, 0, "layer ")
    (args,) = figure.layout.sliders[0].steps[1].args
    place = {
        id: x
        for trace, xs in zip(figure.data, args["x"], strict=True)
        for id, x in zip(trace.hovertext, xs, strict=True)
    }
    assert place == dict(zip(frame["id"], moved[:, 0], strict=True))


def test_the_menus_of_the_projections_move_points_and_margins_together():
    frame = prompts()
    projected = pd.DataFrame(frame[["a", "b"]].to_numpy(), columns=["advice", "humanizing"])
    figure = projection_scatter(frame, projected, where="here", title="t")
    for menu, axis, column in zip(figure.layout.updatemenus, "xy", ("advice", "humanizing"), strict=True):
        values, heading, traces = menu.buttons[list(projected).index(column)].args
        assert heading == {f"{axis}axis.title.text": f"along {category_by_id(column).title}, here"}
        shown = [figure.data[index] for index in traces]
        assert {trace.type for trace in shown} == {"scatter", "histogram"}
        assert all(np.allclose(trace[axis], moved) for trace, moved in zip(shown, values[axis], strict=True))


def test_the_margins_count_all_prompts_in_the_same_bins_and_points_keep_their_places():
    frame = prompts(300).assign(outcome=["answered", "refused", "refused"] * 100)
    spread = np.random.default_rng(0).normal(size=(300, 11)) * np.linspace(0.5, 3, 11)
    projected = pd.DataFrame(spread, columns=[category.id for category in CATEGORIES])
    figure = projection_scatter(frame, projected, where="here", title="t")
    margins = [trace for trace in figure.data if trace.type == "histogram"]
    assert len(margins) == 4
    assert len({trace.bingroup for trace in margins if trace.x is not None}) == 1
    assert len({trace.bingroup for trace in margins if trace.y is not None}) == 1
    for button, column in zip(figure.layout.updatemenus[0].buttons, projected, strict=True):
        for number, moved in zip(button.args[2], button.args[0]["x"], strict=True):
            exact = projected.loc[frame["outcome"] == figure.data[number].name, column]
            assert np.abs(exact - moved).max() < 0.01 * np.ptp(projected[column])
    assert (figure.layout.xaxis2.title.text, figure.layout.yaxis3.title.text) == ("prompts", "prompts")
    assert figure.layout.xaxis2.showticklabels
    assert figure.layout.yaxis3.showticklabels
