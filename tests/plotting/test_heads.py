import numpy as np
import torch

from refusal_utils.plotting.heads import head_maps
from refusal_utils.prompts.categories import CATEGORIES


def test_head_maps_show_one_category_at_a_time_and_star_what_is_significant():
    contribution = torch.arange(66.0).view(2, 3, 11) - 30
    p_values = torch.ones(2, 3, 11)
    p_values[1, 2, 4] = 0.01
    figure = head_maps(contribution, p_values, title="t", value="contribution, here")
    assert [trace.visible for trace in figure.data] == [True] + [False] * 10
    for c, (trace, category) in enumerate(zip(figure.data, CATEGORIES, strict=True)):
        assert trace.z.tolist() == [[float(11 * (3 * layer + head) + c - 30) for head in range(3)] for layer in (0, 1)]
        assert (trace.zmin, trace.zmid, trace.zmax) == (-35, 0, 35)  # one scale, centred
        assert category.title in trace.hovertemplate
    starred = [(c, *place) for c, trace in enumerate(figure.data) for place in np.argwhere(trace.text == "*").tolist()]
    assert starred == [(4, 1, 2)]
    buttons = figure.layout.updatemenus[0].buttons
    assert [button.label for button in buttons] == [category.title for category in CATEGORIES]
    assert np.array_equal([button.args[0]["visible"] for button in buttons], np.eye(11, dtype=bool))
