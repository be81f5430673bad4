import pandas as pd
import pytest
import torch

from refusal_utils.geometry.stability import HALVES, measure_stability

from .planted import WIDTH, N, four_categories


def test_stability_finds_the_noise_that_was_planted():
    table = measure_stability(*four_categories(), n_draws=200).table()
    # a difference of means of n a side has noise 2 d / n on top of the planted squared length
    assert table["split half mean"].to_numpy() == pytest.approx(16 / (16 + 2 * WIDTH / 32), abs=0.04)
    assert table["reliability"].to_numpy() == pytest.approx(16 / (16 + 2 * WIDTH / N), abs=0.04)
    assert table["gap"].to_numpy() == pytest.approx((16 + 2 * WIDTH / N) ** 0.5, abs=0.4)
    assert (table["bucket min"] < table["bucket mean"]).all()
    assert (table["bucket mean"] < table["bucket max"]).all()
    assert (table[["n", "bucket n"]] == 32).all().all()


def test_a_small_draw_takes_its_halves_from_more_prompts_and_says_how_many():
    wide, wide_answered = four_categories()
    wide = {**wide, "apart": wide["apart"][:50]}
    refused, answered = {name: own[:32] for name, own in wide.items()}, wide_answered[:32]
    table = measure_stability(refused, answered, (wide, wide_answered), n_draws=200).table()
    assert table["n"].to_dict() == {"one": 32, "same": 32, "apart": 25, "opposite": 32}
    assert (table["bucket n"] == 16).all()
    for name, n in table["n"].items():
        assert table.loc[name, "split half mean"] == pytest.approx(16 / (16 + 2 * WIDTH / n), abs=0.05)
    own = measure_stability(refused, answered, n_draws=200).table()  # before control: halves of the draw alone
    assert (own["n"] == 16).all()
    assert (table["split half mean"] > own["split half mean"] + 0.05).all()
    pd.testing.assert_frame_equal(table.drop(columns=[*HALVES, "n"]), own.drop(columns=[*HALVES, "n"]))


def test_buckets_have_half_of_the_smallest_side_wherever_it_stands():
    refused, answered = four_categories()
    few = {**refused, "apart": refused["apart"][:22]}
    assert set(measure_stability(refused, answered[:20], n_draws=5).table()["bucket n"]) == {10}
    assert set(measure_stability(few, answered, n_draws=5).table()["bucket n"]) == {11}


def test_more_prompts_do_not_change_the_halves_of_a_large_draw():
    refused, answered = four_categories()
    alone, wide = (measure_stability(refused, answered, more, seed=3) for more in (None, (refused, answered)))
    pd.testing.assert_frame_equal(alone.table(), wide.table())
    assert not alone.table().equals(measure_stability(refused, answered, seed=4).table())


def test_the_curve_rises_to_the_direction_of_all_prompts():
    found = measure_stability(*four_categories(), n_draws=20)
    curve = found.curve()
    assert list(curve.index) == [4, 8, 16, 32, 64, N]
    assert (curve.diff().dropna() > 0).all().all()
    assert curve.loc[N].to_numpy() == pytest.approx(1)
    assert found.numbers()["lowest bucket"] == found.table()["bucket min"].min()


def test_the_figure_draws_the_curve_of_every_category():
    refused, answered = four_categories(names=("advice", "humanizing", "incomplete", "unsupported"))
    found = measure_stability(refused, answered, n_draws=20)
    figure = found.figure("bundled", "resid_pre, layer 6, pos -2")
    drawn = {trace.name: list(trace.y) for trace in figure.data}
    assert drawn["Humanizing"] == pytest.approx(found.curve()["humanizing"].tolist(), abs=1e-4)
    assert "layer 6" in figure.layout.yaxis.title.text
    assert "bundled" in figure.layout.title.text


def test_groups_of_categories_are_those_of_their_pooled_sides():
    refused, answered = four_categories()
    both = torch.cat([refused["apart"], refused["one"]])
    groups = {"both": ("apart", "one"), "partly": ("apart", "not drawn"), "none": ("not drawn",)}
    found = measure_stability(refused, answered, groups=groups)
    plain = measure_stability({"both": both, "partly": refused["apart"]}, answered)
    pd.testing.assert_frame_equal(found.table(), plain.table())
