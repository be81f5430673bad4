from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch

from refusal_utils.directions import DirectionSet, Provenance
from refusal_utils.directions.comparison import cosine_frame, whitened_cosines
from refusal_utils.directions.estimation import mean_directions
from refusal_utils.geometry.clusters import same_cluster_map
from refusal_utils.geometry.pairs import compare_with_map, pair_table
from refusal_utils.geometry.uncertainty import cosine_intervals
from refusal_utils.prompts.categories import CATEGORY_IDS

from .planted import WIDTH, four_categories

NAMES = ("advice", "humanizing", "incomplete", "unsupported")
ONE, SAME, APART, OPPOSITE = NAMES


@pytest.fixture(scope="module")
def eleven():
    """(states of the eleven categories by name, benign states), directions at random."""
    generator = torch.Generator().manual_seed(0)
    sides = {
        name: torch.randn(8, 40, generator=generator) + torch.randn(40, generator=generator) for name in CATEGORY_IDS
    }
    return sides, torch.randn(8, 40, generator=generator)


def test_pair_table_gives_numpys_cosines_and_recovers_the_planted_ones():
    refused, answered = four_categories(names=NAMES)
    table = pair_table(refused, answered, n_draws=200, n_null=200).by_pair
    r = {name: own.double().numpy().mean(0) - answered.double().numpy().mean(0) for name, own in refused.items()}
    for (first, second), row in table.iterrows():
        cosine = r[first] @ r[second] / np.linalg.norm(r[first]) / np.linalg.norm(r[second])
        assert row["raw"] == pytest.approx(cosine, abs=1e-5)
    for pair, cosine in {(ONE, SAME): 1, (ONE, APART): 0, (ONE, OPPOSITE): -1}.items():
        assert table.loc[pair, "corrected"] == pytest.approx(cosine, abs=0.1)
    assert list(table.index) == list(combinations(NAMES, 2))


def test_pair_table_tells_distinct_and_related_pairs():
    found = pair_table(*four_categories(names=NAMES), n_draws=50, n_null=200)
    table = found.by_pair
    assert table.loc[(ONE, SAME), "p distinct"] > 0.05 > table.loc[(ONE, APART), "p distinct"]
    assert table.loc[(ONE, SAME), "p related"] < 0.05 < table.loc[(ONE, APART), "p related"]
    assert found.n_distinct == (table["p distinct"] < 0.05).sum() == 5
    assert found.n_related == found.numbers()["related pairs"] == (table["p related"] < 0.05).sum() > 0
    assert found.table()["corrected"].is_monotonic_increasing
    assert found.table()["pair"].iloc[-1] == "Unqualified advice / Humanizing"


def test_centred_and_whitened_cosines_differ_from_the_plain_ones_as_they_should():
    refused, answered = four_categories(names=NAMES)
    loud = torch.ones(WIDTH)
    loud[1] = 30.0  # one axis made loud on every side, noise included
    stretched = {name: own * loud for name, own in refused.items()}, answered * loud
    table, plain = (pair_table(*sides, n_draws=20, n_null=20).by_pair for sides in (stretched, (refused, answered)))
    assert table["whitened"].to_numpy() == pytest.approx(plain["whitened"].to_numpy(), abs=0.15)
    assert abs(table["raw"] - plain["raw"]).max() > 0.2
    assert abs(plain["centred"] - plain["raw"]).max() > 0.1


def test_whitening_takes_the_spread_around_the_mean_of_every_side():
    refused, answered = four_categories(names=NAMES)
    found = pair_table(refused, answered, n_draws=20, n_null=20).by_pair["whitened"]
    spread = np.concatenate([side.numpy() - side.numpy().mean(0) for side in (*refused.values(), answered)])
    expected = whitened_cosines(mean_directions(refused, answered), torch.from_numpy(spread))
    rows, columns = np.triu_indices(len(NAMES), 1)
    assert found.to_numpy() == pytest.approx(expected.numpy()[rows, columns], abs=1e-4)


def test_p_values_depend_on_the_null_draws_and_not_on_those_of_the_intervals():
    sides = four_categories(names=NAMES)
    few, many = (pair_table(*sides, n_draws=n, n_null=100, seed=1).by_pair for n in (20, 60))
    columns = ["p distinct", "p related"]
    pd.testing.assert_frame_equal(few[columns], many[columns], check_exact=True)
    assert abs(few["low"] - many["low"]).max() > 0


def test_metrics_are_square_maps_and_the_plain_one_is_that_of_the_directions(eleven):
    found = pair_table(*eleven, n_draws=10, n_null=10)
    expected = cosine_frame(mean_directions(*eleven), CATEGORY_IDS)
    pd.testing.assert_frame_equal(found.metrics()["plain"].astype("float32"), expected, atol=1e-5, check_names=False)
    assert len(found.metrics_figure("bundled", "layer 6").data) == 3


def test_the_map_of_clusters_is_compared_over_the_categories_that_are_there(eleven):
    refused = {name: eleven[0][name] for name in CATEGORY_IDS[4:]}
    found = pair_table(refused, eleven[1], n_draws=10, n_null=10)
    like = compare_with_map(found, same_cluster_map(), n_draws=20, n_deals=50)
    four = set(CATEGORY_IDS[7:])
    same = [len({*pair} & four) != 1 for pair in found.by_pair.index]
    assert len(like.pairs) == 21
    assert like.correlation == pytest.approx(np.corrcoef(found.by_pair["raw"], same)[0, 1])


def test_a_noisy_copy_of_the_map_is_like_it_and_an_unrelated_map_is_not(eleven):
    found = pair_table(*eleven, n_draws=10, n_null=10)
    own = cosine_frame(mean_directions(*eleven), CATEGORY_IDS)
    noise = np.random.default_rng(0).normal(size=(2, 11, 11))
    copy, other = own + 0.05 * noise[0], own * 0 + noise[1]
    like, unlike = (compare_with_map(found, each, n_draws=100, n_deals=500) for each in (copy, other))
    above = np.triu_indices(11, 1)
    expected = np.corrcoef(own.to_numpy()[above], copy.to_numpy()[above])[0, 1]
    assert like.correlation == pytest.approx(expected, abs=1e-5)
    assert like.low < like.correlation
    assert like.low < like.high
    assert like.p == pytest.approx(1 / 501)
    assert unlike.p > 0.05
    assert unlike.correlation < unlike.chance < like.correlation
    directions = DirectionSet.from_states(*eleven, Provenance(6, -2, model={"dtype": "float32"}))
    found = like.beside_clusters(found, directions)
    assert found.loc["published map", "correlation"] == round(like.correlation, 4)
    assert found[["layer", "pos", "dtype"]].drop_duplicates().to_numpy().tolist() == [[6, -2, "float32"]]
    assert like.numbers() == {"n": 55, **{name: getattr(like, name) for name in list(like.numbers())[:-1]}}
    row = like.table().loc[("advice", "humanizing")]
    assert row["published"] == pytest.approx(copy.loc["advice", "humanizing"])
    assert len(like.figure("bundled", "layer 6", "Gemma").data) == 3


def test_fewer_than_eleven_categories_are_compared_over_those_that_the_published_map_has(eleven):
    (states, answered), kept = eleven, ("hate_speech", "advice", "incomplete", "humanizing")
    few = pair_table({name: states[name] for name in kept}, answered, n_draws=10, n_null=10)
    copy = cosine_frame(mean_directions(*eleven), CATEGORY_IDS) + 0.05 * np.random.default_rng(0).normal(size=(11, 11))
    like = compare_with_map(few, copy, n_draws=20, n_deals=500)
    above = np.triu_indices(4, 1)
    own, theirs = (each.loc[list(kept), list(kept)].to_numpy()[above] for each in (few.metrics()["plain"], copy))
    assert like.correlation == pytest.approx(np.corrcoef(own, theirs)[0, 1])
    assert like.p > 1 / 25  # of the 24 orders of four names, one is that of the map itself
    assert "The 6 pairs" in like.figure("m", "layer 6", "Gemma").layout.title.text
    assert "The 6 cosines" in few.figure("m", "layer 6").layout.title.text
    partly = compare_with_map(few, copy.drop(index="advice", columns="advice"), n_draws=20, n_deals=500)
    assert partly.table()["published"].count() == 3  # a category of one's own is in no published map


def test_corrected_cosines_of_directions_that_are_nearly_all_noise_stay_cosines():
    generator = torch.Generator().manual_seed(2)
    sides = {name: torch.randn(6, 30, generator=generator) for name in CATEGORY_IDS}
    found = pair_table(sides, torch.randn(6, 30, generator=generator), n_draws=20, n_null=10)
    unbounded = cosine_intervals(found.sample, 20).corrected
    assert unbounded.abs().nan_to_num().max() > 1  # before control
    known = found.by_pair["corrected"].dropna()
    assert len(known) > 3
    assert known.abs().max() == 1
