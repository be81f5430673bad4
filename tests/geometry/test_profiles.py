"""A profile holds at every place what the single analyses give there."""

import dataclasses
from itertools import combinations

import pandas as pd
import pytest
import torch

from refusal_utils.geometry.confounds import measure_confounds
from refusal_utils.geometry.labelled import Labelled, paired_sides
from refusal_utils.geometry.oracles import measure_oracles
from refusal_utils.geometry.pairs import pair_table
from refusal_utils.geometry.profiles import Evidence, depth_profile
from refusal_utils.geometry.stability import measure_stability
from refusal_utils.model.capture import Activations
from refusal_utils.prompts.categories import BENIGN, CATEGORY_IDS

N = 8


def activations(n: int, seed: int, axes=(0,)) -> Activations:
    """Random states at layers 0 to 2 and positions -2 and -1; prompts take turns in being far out along `axes`."""
    values = torch.randn(n, 3, 2, 20, generator=torch.Generator().manual_seed(seed))
    values += 5 * torch.eye(20)[[axes[row % len(axes)] for row in range(n)]][:, None, None]
    return Activations(values, (0, 1, 2), (-2, -1), "resid_pre", "random", n)


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    labels = (*CATEGORY_IDS, BENIGN) * N
    drawn, *twins = (Labelled(activations(len(labels), seed, range(seed, 12 + seed)), labels) for seed in range(3))
    buckets = {name: activations(10, axis, (axis,)) for axis, name in enumerate(("HR", "HC", "BR", "BC"))}
    return Evidence(drawn, drawn, tuple(twins), pd.DataFrame({"length": range(N)}), buckets)


def test_every_place_has_the_numbers_of_the_single_analyses(evidence):
    published = pd.Series(range(55), pd.MultiIndex.from_tuples(combinations(CATEGORY_IDS, 2)), dtype=float)
    found = depth_profile(evidence, published, n_bucket=4, seed=1)
    assert list(found.by_place.index) == [(1, -2), (1, -1), (2, -2), (2, -1)]  # layer 0 is left out
    assert not found.by_place.isna().any().any()
    place = (2, -2)
    refused, answered = evidence.drawn.sides(*place)
    pairs = pair_table(refused, answered, 200, 1000, 1)
    pd.testing.assert_frame_equal(found.pairs.loc[place], pairs.by_pair)
    twins = paired_sides(*evidence.twins, *place)
    buckets = {name: own.at(*place) for name, own in evidence.buckets.items()}
    expected = {
        **pairs.numbers(),
        **measure_stability(refused, answered, n_draws=100, seed=1).numbers(),
        **measure_confounds(refused, answered, evidence.features, twins).numbers(),
        **measure_oracles(buckets, 4, n_intervals=200, seed=1).numbers(),
        "like published": pairs.likeness(published),
    }
    assert found.by_place.loc[place, list(expected)].to_dict() == pytest.approx(expected)
    assert found.table(-2)[2].equals(found.by_place.loc[place].rename(2))
    assert len(found.figure("random").data) == found.by_place.shape[1]
    pd.testing.assert_frame_equal(found.maps(-2)[2], pairs.metrics()["plain"])
    shown = found.maps_figure("random", 2, -2).data[0].z
    assert shown == pytest.approx(found.maps(-2)[2].to_numpy(), abs=1e-4)


def test_sides_give_each_category_its_own_rows_in_the_order_of_the_eleven():
    labels = (*reversed((*CATEGORY_IDS, BENIGN)), "advice")
    captured = activations(13, 0)
    refused, answered = Labelled(captured, labels).sides(1, -1)
    assert tuple(refused) == CATEGORY_IDS
    rows = captured.at(1, -1)
    assert torch.equal(refused["advice"], rows[[labels.index("advice"), 12]])
    assert torch.equal(answered, rows[[labels.index(BENIGN)]])
    assert sum(map(len, refused.values())) + len(answered) == 13
    assert list(Labelled(captured, ("advice", BENIGN, "humanizing") * 4 + (BENIGN,)).sides(1, -1)[0]) == [
        "advice",
        "humanizing",
    ]
    with pytest.raises(ValueError, match="^Labelled: every prompt must have a label; got 12 labels for 13 prompts"):
        Labelled(captured, labels[:-1])


def test_paired_sides_keep_twins_together():
    first = activations(3, 0)
    second = dataclasses.replace(first, values=-first.values)
    labels = ("advice", "humanizing", "advice")
    pairs = paired_sides(Labelled(first, labels), Labelled(second, labels), 1, -1)
    own, twins = pairs["advice"]
    assert torch.equal(own, first.at(1, -1)[[0, 2]])
    assert torch.equal(twins, -own)
