import numpy as np
import pytest
import torch

from refusal_utils.geometry.oracles import measure_oracles

from .planted import WIDTH, N, buckets

LABEL = "HR-BC / BR-BC"


def difference(states, contrast):
    first, second = (states[name].double().numpy().mean(0) for name in contrast.split("-"))
    return first - second


def cosine(first, second):
    return first @ second / np.linalg.norm(first) / np.linalg.norm(second)


def test_the_interval_covers_the_planted_cosine():
    drawn = buckets(0, n=N, d_model=WIDTH, harm=4, refusal=4)
    found = measure_oracles(drawn, 32, 50, 300)
    assert found.between[f"{LABEL}, low"] < 2**-0.5 < found.between[f"{LABEL}, high"]
    assert found.between[LABEL] == pytest.approx(2**-0.5, abs=0.1)
    table = found.table()
    assert table.loc["HR-BC", "split half"] > table.loc["HR-HC", "split half"]  # the longer difference is more certain
    assert (table["bucket min"] < table["bucket mean"]).all()
    assert found.numbers()["split half, HR-BC"] == table.loc["HR-BC", "split half"]


def test_contrasts_of_all_prompts_have_numpys_cosines_and_those_of_few_are_lower():
    drawn = {name: states for name, states in buckets(1, n=400).items() if name != "HC"}
    whole, few = (measure_oracles(drawn, n, 50, 20) for n in (200, 8))
    assert set(whole.to_all.index.unique("contrast")) == {"HR-BR", "HR-BC", "BR-BC"}
    for contrast, reference in whole.to_all.index:
        expected = cosine(difference(drawn, contrast), difference(drawn, reference))
        assert whole.to_all.loc[(contrast, reference), "mean"] == pytest.approx(expected, abs=0.03)
    own = ("HR-BC", "HR-BC")
    assert few.to_all.loc[own, "mean"] < whole.to_all.loc[own, "mean"] < 1
    assert (few.to_all["std"] > 0.001).all()
    assert few.by_contrast.loc["HR-BC", "bucket mean"] == few.to_all.loc[own, "mean"]
    figure = few.figure("bundled", "layer 6")
    assert figure.data[0].z.shape == (3, 3)
    with pytest.raises(ValueError, match="^subset_counts: 402 prompts are needed on every side; got 400"):
        measure_oracles(drawn, 201)


def test_without_a_bucket_the_two_kinds_of_refusal_are_not_compared():
    drawn = {name: states for name, states in buckets(1).items() if name != "BR"}
    assert measure_oracles(drawn, 8, 5, 20).between == {}
    assert (
        measure_oracles(drawn, 8, 5, 20).summary() == "HR-BC and BR-BC are not compared: a bucket has too few prompts"
    )
    whole = measure_oracles(buckets(1), 8, 5, 20)
    assert f"corrected cosine {whole.between[LABEL]:.2f} (" in whole.summary()


def test_too_few_prompts_outside_the_gold_give_an_empty_table_that_can_be_written_and_shown():
    drawn = buckets(1, n=6)
    none = measure_oracles(drawn, 2, 3, 3).to_gold({name: np.arange(6) >= 2 for name in drawn})
    assert none.empty
    assert list(none) == ["mean", "std", "n"]
    assert none["mean"].unstack().round(2).empty


def test_cosines_with_gold_are_numpys_with_the_contrasts_of_other_prompts():
    generator = torch.Generator().manual_seed(1)
    means = dict(zip(("HR", "HC", "BR", "BC"), torch.randn(4, WIDTH, generator=generator), strict=True))
    drawn, gold = (
        {name: torch.randn(n, WIDTH, generator=generator) + mean for name, mean in means.items()} for n in (12, 9)
    )
    gold["BR"] = gold["BR"][:1]

    def measured(of_gold, n, n_draws):
        both = {name: torch.cat([drawn[name], of_gold[name]]) for name in drawn}
        oracles = measure_oracles(both, 4, 2, 2)
        return oracles.to_gold({name: np.arange(len(both[name])) >= 12 for name in both}, n, n_draws)

    whole, few = measured(gold, 32, 3), measured(gold, 4, 50)
    for (contrast, reference), row in whole.iterrows():  # every draw takes all twelve
        expected = cosine(difference(drawn, contrast), difference(gold, reference.split()[1]))
        assert row["mean"] == pytest.approx(expected, abs=1e-5)
        assert row["std"] == pytest.approx(0, abs=1e-6)
        assert row["n"] == 12
    assert set(whole.index.unique("reference")) == {"XSTest HR-HC", "XSTest HR-BC", "XSTest HC-BC"}  # too few in BR
    assert len(whole) == 6 * 3
    assert (few["std"] > 0.01).all()
    assert few.loc[("HR-BC", "XSTest HR-BC"), "mean"] < whole.loc[("HR-BC", "XSTest HR-BC"), "mean"]
    assert measured({name: own[:1] for name, own in gold.items()}, 4, 5).empty
