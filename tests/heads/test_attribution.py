import numpy as np
import pytest
import torch

from refusal_utils.directions.direction_set import DirectionSet, Provenance
from refusal_utils.directions.estimation import random_directions
from refusal_utils.heads.attribution import HeadAttribution
from refusal_utils.heads.shares import Shares, component_shares, tolerance
from refusal_utils.model.capture import capture_activations
from refusal_utils.model.chat_model import load_chat_model
from refusal_utils.prompts.categories import BENIGN, CATEGORIES, CATEGORY_IDS

LABELS = [name for name in (*CATEGORY_IDS, BENIGN) for _ in range(6)]


def planted(n_layers=3, n_heads=4):
    """An attribution of random shares in which head (c % 3, c % 4) writes category c's direction."""
    generator = torch.Generator().manual_seed(0)
    heads = torch.randn(len(LABELS), n_layers, n_heads, 11, generator=generator)
    for c, name in enumerate(CATEGORY_IDS):
        heads[np.array(LABELS) == name, c % n_layers, c % n_heads, c] += 9
    mlps, biases = torch.randn(2, len(LABELS), n_layers, 11, generator=generator)
    total = (heads.sum(2) + mlps + biases).sum(1) + 1
    shares = Shares(heads, mlps, biases, torch.ones(len(LABELS), 11), total)
    directions = DirectionSet(CATEGORY_IDS, random_directions(11, 16), torch.ones(11), Provenance(n_layers, -1))
    return HeadAttribution.from_shares(shares, LABELS, directions, n_draws=200)


def test_the_planted_head_of_every_category_is_found_with_its_interval():
    found = planted()
    assert found.top(1) == {name: [(c % 3, c % 4)] for c, name in enumerate(CATEGORY_IDS)}
    table = found.table(2)
    assert table.index.names == ["category", "layer", "head"]
    assert len(table) == 22
    best = table.groupby("category", sort=False).head(1)
    assert best["contribution"].between(7, 11).all()
    assert (best["low"] < best["contribution"]).all()
    assert (best["high"] > best["contribution"]).all()
    assert (best["p_value"] < 0.01).all()
    assert best["share_of_gap"].to_numpy() == pytest.approx(best["contribution"].to_numpy() / found.gap.to_numpy())
    assert float((found.p_value < 0.05).double().mean()) < 0.2  # before control: most heads do nothing
    assert len(found.table(20)) == 11 * 12  # no more heads than there are


def test_parts_sum_to_the_gap():
    found = planted()
    assert found.parts.sum(axis=1).to_numpy() == pytest.approx(found.gap.to_numpy(), rel=1e-4)
    assert (found.parts["embedding"] == 0).all()  # the same on every prompt
    assert found.of_gap().sum(axis=1).to_numpy() == pytest.approx(1, rel=1e-4)
    assert "embedding" not in {bars.name for bars in found.parts_figure().data}
    assert (found.parts["heads"] - found.gap).abs().max() > 1  # before control


def test_concentration_is_the_share_of_the_positive_contributions():
    found = planted()
    carried = found.concentration()
    positive = np.sort(np.maximum(found.heads_by_category()["advice"], 0))[::-1]
    assert carried["advice"].to_numpy() == pytest.approx(positive.cumsum() / positive.sum(), abs=1e-5)
    assert list(carried.index) == list(range(1, 13))


def test_the_figure_has_a_map_per_category_and_a_star_where_p_is_small():
    found = planted()
    figure = found.figure()
    limit = float(found.contribution.abs().max())
    axis = figure.layout.coloraxis
    assert (axis.cmin, axis.cmax) == pytest.approx((-limit, limit))
    maps = {trace.name: trace for trace in figure.data}
    for c in range(11):
        trace = maps[str(c)]
        assert trace.z == pytest.approx(found.contribution[..., c].numpy(), abs=1e-6)
        assert np.array_equal(np.char.endswith(trace.text.astype(str), "*"), found.p_value[..., c].numpy() < 0.05)
        assert np.array_equal(np.char.strip(trace.text.astype(str), "*") != "", abs(trace.z) >= 0.1 * limit)
    assert {note.text for note in figure.layout.annotations} == {category.title for category in CATEGORIES}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_contributions_sum_to_the_gaps_of_the_directions(prompts, dtype):
    """Against the states themselves: all components together give the distance of the two means."""
    chat = load_chat_model("bundled", device="cpu", dtype=dtype)
    texts, labels = prompts[:24], [name for name in ("advice", "humanizing", BENIGN) for _ in range(8)]
    states = capture_activations(chat, texts, layers=[3], positions=[-1]).at(3, -1)
    sides = {name: states[torch.tensor([label == name for label in labels])] for name in dict.fromkeys(labels)}
    directions = DirectionSet.from_states(sides, sides.pop(BENIGN), Provenance(3, -1))
    shares = component_shares(chat, texts, directions.vectors, layer=3, pos=-1)
    found = HeadAttribution.from_shares(shares, labels, directions, n_draws=20)
    assert found.contribution.shape == (3, 6, 2)
    error = np.abs(found.parts.sum(axis=1) / directions.gaps.numpy() - 1).max()
    assert error < max(1e-3, tolerance(chat.dtype))
    assert (error > 1e-3) == (dtype == "bfloat16")  # before control: the bound of float32 does not hold
    assert found.gap.to_numpy() == pytest.approx(directions.gaps.numpy(), rel=1e-3)
    assert found.where == "resid_pre, layer 3, pos -1"
