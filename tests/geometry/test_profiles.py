import numpy as np
import pandas as pd
import pytest
import torch

from refusal_utils.geometry import profiles
from refusal_utils.prompts.categories import BENIGN, CATEGORY_IDS

NAMES = ("one", "same", "apart", "opposite")
WIDTH, N = 60, 80


def planted(seed=0, noise=1.0):
    """Four categories: two share a direction, one is orthogonal to it, one points against it; length 4, white noise."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.eye(WIDTH)[:2] * 4
    means = dict(zip(NAMES, (axes[0], axes[0], axes[1], -axes[0]), strict=True))
    refused = {name: noise * torch.randn(N, WIDTH, generator=generator) + mean for name, mean in means.items()}
    return refused, noise * torch.randn(N, WIDTH, generator=generator)


def test_pair_table_gives_numpys_cosines_and_recovers_the_planted_ones():
    refused, answered = planted()
    table = profiles.pair_table(refused, answered, n_draws=200, n_null=200)
    r = {name: own.double().numpy().mean(0) - answered.double().numpy().mean(0) for name, own in refused.items()}
    for (first, second), row in table.iterrows():
        cosine = r[first] @ r[second] / np.linalg.norm(r[first]) / np.linalg.norm(r[second])
        assert row["raw"] == pytest.approx(cosine, abs=1e-5)
    truth = {("one", "same"): 1, ("one", "apart"): 0, ("one", "opposite"): -1}
    for pair, cosine in truth.items():
        assert table.loc[pair, "corrected"] == pytest.approx(cosine, abs=0.1)
    assert list(table.index) == [(a, b) for i, a in enumerate(NAMES) for b in NAMES[i + 1 :]]


def test_pair_table_tells_distinct_and_related_pairs():
    table = profiles.pair_table(*planted(), n_draws=50, n_null=200)
    assert table.loc[("one", "same"), "p distinct"] > 0.05 > table.loc[("one", "apart"), "p distinct"]
    assert table.loc[("one", "same"), "p related"] < 0.05 < table.loc[("one", "apart"), "p related"]


def test_centred_and_whitened_cosines_differ_from_the_plain_ones_where_they_should():
    refused, answered = planted()
    loud = torch.ones(WIDTH)
    loud[1] = 30.0  # one axis made loud on every side, noise included
    table = profiles.pair_table(
        {name: own * loud for name, own in refused.items()}, answered * loud, n_draws=20, n_null=20
    )
    plain = profiles.pair_table(refused, answered, n_draws=20, n_null=20)
    assert table["whitened"].to_numpy() == pytest.approx(plain["whitened"].to_numpy(), abs=0.15)
    assert abs(table["raw"] - plain["raw"]).max() > 0.2
    assert abs(plain["centred"] - plain["raw"]).max() > 0.1


def test_stability_table_finds_the_noise_that_was_planted():
    table = profiles.stability_table(*planted(), n_prompts=32, n_draws=200)
    # a difference of means of n a side has noise 2 d / n on top of the planted squared length
    share = 16 / (16 + 2 * WIDTH / 32)
    assert table["split half mean"].to_numpy() == pytest.approx(share, abs=0.04)
    assert table["reliability"].to_numpy() == pytest.approx(16 / (16 + 2 * WIDTH / N), abs=0.04)
    assert table["gap"].to_numpy() == pytest.approx((16 + 2 * WIDTH / N) ** 0.5, abs=0.4)
    assert (table["bucket min"] < table["bucket mean"]).all()
    assert (table["bucket mean"] < table["bucket max"]).all()
    with pytest.raises(ValueError, match="prompts are needed on every side"):
        profiles.stability_table(*planted(), n_prompts=N)


def test_stability_of_a_small_draw_takes_its_halves_from_more_prompts_and_says_how_many():
    wide, wide_answered = planted()
    wide = {**wide, "apart": wide["apart"][:50]}
    refused, answered = {name: own[:32] for name, own in wide.items()}, wide_answered[:32]
    table = profiles.stability_of_draw(refused, answered, wide, wide_answered, n_draws=200)
    assert table["n"].to_dict() == {"one": 32, "same": 32, "apart": 25, "opposite": 32}
    assert (table["bucket n"] == 16).all()
    for name, n in table["n"].items():  # a difference of means of n a side has noise 2 d / n
        assert table.loc[name, "split half mean"] == pytest.approx(16 / (16 + 2 * WIDTH / n), abs=0.05)
    own = profiles.stability_table(refused, answered, 16, 200)
    others = ["gap", "reliability", "bucket min", "bucket mean", "bucket max"]
    pd.testing.assert_frame_equal(table[others], own[others])
    assert (table["split half mean"] > own["split half mean"] + 0.05).all()


def test_stability_of_a_large_draw_is_the_draws_own():
    refused, answered = planted()
    table = profiles.stability_of_draw(refused, answered, refused, answered, seed=3)
    pd.testing.assert_frame_equal(
        table.drop(columns=["n", "bucket n"]), profiles.stability_table(refused, answered, seed=3)
    )
    assert (table[["n", "bucket n"]] == 32).all().all()
    few = {name: own[:20] for name, own in refused.items()}
    alone = profiles.stability_of_draw(few, answered[:20], few, answered[:20], n_draws=20)
    assert (alone["n"] == 10).all()


def test_p_values_depend_on_the_null_draws_and_not_on_those_of_the_intervals():
    few, many = (profiles.pair_table(*planted(), n_draws=n, n_null=100, seed=1) for n in (20, 60))
    columns = ["p distinct", "p related"]
    pd.testing.assert_frame_equal(few[columns], many[columns], check_exact=True)
    assert abs(few["low"] - many["low"]).max() > 0


def test_confound_table_finds_a_planted_feature_and_twins_are_free_of_it():
    refused, answered = planted()
    generator = torch.Generator().manual_seed(1)
    length = torch.randn(N, generator=generator)
    answered = answered + 3 * length[:, None] * torch.eye(WIDTH)[5]
    longer = {name: own + 8 * torch.eye(WIDTH)[5] for name, own in refused.items()}
    twins = {name: (longer[name], longer[name] - own.mean(0) + 8 * 0) for name, own in refused.items()}
    table, maps = profiles.confound_table(longer, answered, {"length": length}, twins)
    assert table["length"].min() > 0.8
    assert table["without features"].max() < 0.6
    before = profiles.cosine_frame(profiles.unit_directions(longer, answered), list(NAMES))
    assert before.loc["one", "apart"] > 0.7
    assert abs(maps["without features"].loc["one", "apart"]) < 0.25
    assert abs(maps["twins"].loc["one", "apart"]) < 0.25
    assert (table["twins"] < 0.6).all()


def test_confound_table_finds_a_planted_topic():
    refused, answered = planted()
    generator = torch.Generator().manual_seed(1)
    axis = dict(zip(NAMES, 6 * torch.eye(WIDTH)[10:14], strict=True))  # a topic of each category's own ...
    shared = 5 * torch.eye(WIDTH)[20]  # ... and one that all have
    about = {name: own + axis[name] + shared for name, own in refused.items()}
    benign = {name: torch.randn(N, WIDTH, generator=generator) + axis[name] + shared for name in refused}
    twins = {name: (about[name], benign[name]) for name in refused}
    table, maps = profiles.confound_table(about, answered, {"row": torch.arange(N).float()}, twins)
    assert table["topic"].min() > 0.7
    before = profiles.cosine_frame(profiles.unit_directions(about, answered), list(NAMES))
    assert before.loc["one", "apart"] > 0.25
    assert abs(maps["without topics"].loc["one", "apart"]) < 0.2
    assert maps["without topics"].loc["one", "opposite"] < -0.6 < before.loc["one", "opposite"]


def test_space_summary_counts_dimensions_and_knows_planted_clusters():
    generator = torch.Generator().manual_seed(0)
    basis = torch.eye(WIDTH)
    means = [basis[0] + 0.4 * basis[k] for k in (2, 3, 4)] + [basis[1] + 0.4 * basis[k] for k in (5, 6, 7)]
    refused = {f"c{i}": 20 * mean + 0.1 * torch.randn(N, WIDTH, generator=generator) for i, mean in enumerate(means)}
    answered = 0.1 * torch.randn(N, WIDTH, generator=generator)
    kinds = {f"c{i}": "left" if i < 3 else "right" for i in range(6)}
    found = profiles.space_summary(refused, answered, kinds)
    assert found["same two clusters"] == 1
    assert found["silhouette 2, average"] == max(value for name, value in found.items() if name.startswith("silh"))
    assert found["cluster angle"] > 80
    assert found["common axis"] == pytest.approx(0.5, abs=0.05)
    mixed = {f"c{i}": "left" if i % 2 else "right" for i in range(6)}
    assert profiles.space_summary(refused, answered, mixed)["same two clusters"] == 0


def test_oracle_cosine_covers_the_planted_one():
    generator = torch.Generator().manual_seed(0)
    harm, refusal = torch.eye(WIDTH)[:2] * 4
    means = {"HR": harm + refusal, "HC": harm, "BR": refusal, "BC": torch.zeros(WIDTH)}
    buckets = {name: torch.randn(N, WIDTH, generator=generator) + mean for name, mean in means.items()}
    found = profiles.oracle_cosine(buckets, n_draws=300)
    assert found["HR-BC / BR-BC, low"] < 2**-0.5 < found["HR-BC / BR-BC, high"]
    assert found["HR-BC / BR-BC"] == pytest.approx(2**-0.5, abs=0.1)
    apart = profiles.oracle_cosine(buckets, "HR-BR", "BR-BC", n_draws=300)
    assert abs(apart["HR-BR / BR-BC"]) < 0.15
    table = profiles.oracle_table(buckets, 32, 50)
    assert table.loc["HR-BC", "split half"] > table.loc["HR-HC", "split half"]  # the longer difference is the surer
    assert (table["bucket min"] < table["bucket mean"]).all()


def test_gold_table_gives_numpys_cosines_with_the_contrasts_of_other_prompts():
    generator = torch.Generator().manual_seed(1)
    means = dict(zip(("HR", "HC", "BR", "BC"), torch.randn(4, WIDTH, generator=generator), strict=True))
    buckets, gold = (
        {name: torch.randn(n, WIDTH, generator=generator) + mean for name, mean in means.items()} for n in (12, 9)
    )
    gold["BR"] = gold["BR"][:1]
    whole = profiles.gold_table(buckets, gold, 12, 3)  # every draw takes all twelve

    def difference(states, first, second):
        return states[first].numpy().mean(0) - states[second].numpy().mean(0)

    for (contrast, reference), row in whole.iterrows():
        ours, theirs = difference(buckets, *contrast.split("-")), difference(gold, *reference.split()[1].split("-"))
        cosine = ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)
        assert row["mean"] == pytest.approx(cosine, abs=1e-5)
        assert row["std"] == pytest.approx(0, abs=1e-6)
    assert set(whole.index.unique("reference")) == {"XSTest HR-HC", "XSTest HR-BC", "XSTest HC-BC"}  # too few in BR
    assert len(whole) == 6 * 3
    few = profiles.gold_table(buckets, gold, 4, 50)
    assert (few["std"] > 0.01).all()
    assert few.loc[("HR-BC", "XSTest HR-BC"), "mean"] < whole.loc[("HR-BC", "XSTest HR-BC"), "mean"]
    assert profiles.gold_table(buckets, {name: own[:1] for name, own in gold.items()}, 4).empty


def test_summarise_says_what_the_tables_say():
    refused, answered = planted()
    stability = profiles.stability_table(refused, answered, 32, 20)
    pairs = profiles.pair_table(refused, answered, 50, 100)
    length = torch.arange(N).float()
    shift = torch.eye(WIDTH)[30]  # the same on both sides: the twins' direction is the plain one
    twins = {name: (own + shift, answered + shift) for name, own in refused.items()}
    table, maps = profiles.confound_table(refused, answered, {"length": length}, twins)
    row = pd.Series(profiles.summarise(stability, pairs, table, maps))
    assert row["twins map, like plain"] == pytest.approx(1)
    assert row["cosine with twins"] == pytest.approx(1)
    assert row["distinct pairs"] == (pairs["p distinct"] < 0.05).sum() > 0
    assert row["related pairs"] == (pairs["p related"] < 0.05).sum() > 0
    assert row["lowest bucket"] == stability["bucket min"].min()
    assert row["strongest feature"] == table["length"].abs().max()
    assert not row.isna().any()


def test_sides_give_each_category_its_own_rows_in_the_order_of_the_eleven():
    labels = [*reversed((*CATEGORY_IDS, BENIGN)), "advice"]
    states = torch.arange(13.0)[:, None].expand(13, 4)
    refused, answered = profiles.sides(states, labels)
    assert tuple(refused) == CATEGORY_IDS
    assert refused["advice"][:, 0].tolist() == [labels.index("advice"), 12]
    assert answered[:, 0].tolist() == [labels.index(BENIGN)]
    assert sum(map(len, refused.values())) + len(answered) == 13
    with pytest.raises(ValueError, match=r"^sides: every prompt must have a label; got 12 labels for 13 prompts"):
        profiles.sides(states, labels[:-1])


def test_paired_sides_keep_twins_together():
    labels = pd.Series(["advice", "humanizing", "advice"])
    states = torch.tensor([[1.0], [2.0], [3.0]])
    pairs = profiles.paired_sides(states, -states, labels)
    assert [side[:, 0].tolist() for side in pairs["advice"]] == [[1, 3], [-1, -3]]
    assert [side[:, 0].tolist() for side in pairs["humanizing"]] == [[2], [-2]]
    with pytest.raises(ValueError, match="got 2 labels for 3 prompts"):
        profiles.paired_sides(states, -states, labels[:2])


def test_bucket_table_gives_numpys_cosines_and_reaches_one_with_all_prompts():
    generator = torch.Generator().manual_seed(1)
    means = dict(zip(("HR", "BR", "BC"), 3 * torch.randn(3, WIDTH, generator=generator), strict=True))
    buckets = {name: torch.randn(12, WIDTH, generator=generator) + mean for name, mean in means.items()}
    whole = profiles.bucket_table(buckets, 12, 3)  # every draw takes all twelve
    centre = {name: own.double().numpy().mean(0) for name, own in buckets.items()}
    for (contrast, reference), row in whole.iterrows():
        first, second = (centre[a] - centre[b] for a, b in (contrast.split("-"), reference.split("-")))
        assert row["mean"] == pytest.approx(first @ second / np.linalg.norm(first) / np.linalg.norm(second), abs=1e-5)
        assert row["std"] == pytest.approx(0, abs=1e-5)
    few = profiles.bucket_table(buckets, 4, 50)
    assert few.loc[("HR-BC", "HR-BC"), "mean"] < whole.loc[("HR-BC", "HR-BC"), "mean"] == pytest.approx(1)
    assert (few["std"] > 0.001).all()
    with pytest.raises(ValueError, match="13 prompts are needed on every side"):
        profiles.bucket_table(buckets, 13, 3)
