import numpy as np
import pytest

from refusal_utils.paper.tables import (
    plain_name,
    published_alphas,
    published_cosines,
    published_gaps,
    published_manifest,
    published_pool_rows,
    published_pool_sizes,
    published_stability,
    published_steering,
    published_table,
)
from refusal_utils.prompts.categories import BENIGN, CATEGORIES, CATEGORY_IDS


def test_published_cosines_are_a_cosine_matrix_with_the_papers_clusters():
    cosines = published_cosines()
    values = cosines.to_numpy()
    assert list(cosines.index) == list(cosines.columns) == list(CATEGORY_IDS)
    # Rounded to three decimals as printed; one pair (advice, over_refusal) is printed as 0.426 and 0.427.
    np.testing.assert_allclose(values, values.T, atol=1.1e-3)
    assert (np.diag(values) == 1).all()
    assert np.linalg.eigvalsh(values).min() > -5e-3  # rounded to three decimals

    # The means within and between the clusters, as the authors' release states them.
    cluster = np.array([category.cluster for category in CATEGORIES])
    pair = np.triu(np.ones_like(values, dtype=bool), 1)
    both = {name: (cluster == name)[:, None] & (cluster == name)[None] for name in set(cluster)}
    assert values[pair & both["content policy"]].mean() == pytest.approx(0.706, abs=5e-4)
    assert values[pair & both["cannot comply"]].mean() == pytest.approx(0.645, abs=5e-4)
    assert values[pair & (cluster[:, None] != cluster[None])].mean() == pytest.approx(0.418, abs=5e-4)


def test_published_cosines_known_entries():
    cosines = published_cosines()
    assert cosines.loc["safety_core", "over_refusal"] == 0.632
    assert cosines.loc["incomplete", "over_refusal"] == -0.062


@pytest.mark.parametrize(("number", "rows"), [(2, 44), (11, None), (12, None), (8, 13), (10, 4), ("D", 6)])
def test_published_table_reads_every_table_with_rates_between_zero_and_one(number, rows):
    table = published_table(number)
    assert rows is None or len(table) == rows
    for name in ("accuracy", "refusal_rate", "over_refusal_rate"):
        if name in table:
            assert table[name].between(0, 1).all()
    if "split" in table:
        assert set(table["category"]) == set(CATEGORY_IDS)


def test_published_table_rejects_a_table_that_is_not_here():
    with pytest.raises(ValueError, match="published_table: the table must be one of .*14, 2, 3"):
        published_table(99)


def test_published_alphas_are_the_strengths_above_zero_of_the_models_own_table():
    assert published_alphas("google/Gemma-2-9b-it/") == [10, 30, 60, 100]
    assert published_alphas("meta-llama/Meta-Llama-3.1-8B-Instruct") == [0.25, 0.5, 0.75, 1.0]
    for name in ("bundled", "google/gemma-2-2b-it", "x/abliterated-gemma-2-9b-it", "gemma-2-9b-it/step-7"):
        assert published_alphas(name) == []
    assert set(published_table(2)["model"]) == {plain_name("google/gemma-2-9b-it"), "llama-3.1-8b-instruct"}


def test_published_pool_sizes_cover_the_eleven_categories():
    sizes = published_pool_sizes()
    assert list(sizes.index) == list(CATEGORY_IDS)
    assert sizes["crime_assistance"] == 190


def test_published_manifest_names_the_decision_state():
    manifest = published_manifest()
    assert (manifest["layer"], manifest["pos"], manifest["d_model"]) == (20, -2, 3584)


def test_published_steering_gives_every_number_of_table_2_its_own_place():
    wide, table = published_steering(), published_table(2)
    assert wide.index.names == ["intervention", "direction"]
    assert wide.size == 3 * len(table)
    for row in table.itertuples():
        own = wide.loc[(row.intervention, row.category)].filter(like=row.model)
        assert [name.rsplit(" ", 1)[1] for name in own.index] == ["accuracy", "RR", "ORR"]
        assert own.tolist() == [row.accuracy, row.refusal_rate, row.over_refusal_rate]


def test_published_pool_rows_are_32_of_each_side_within_their_sources():
    rows = published_pool_rows()
    assert list(rows["category"].unique()) == [*CATEGORY_IDS, BENIGN]
    assert rows["category"].value_counts().unique().tolist() == [32]
    assert not rows.duplicated(["source", "source_index"]).any()
    sorry = {"hate_speech": (1, 50), "crime_assistance": (51, 240), "inappropriate": (241, 390), "advice": (391, 440)}
    for category, (first, last) in sorry.items():  # ten question ids for each of SORRY-Bench's own 44 categories
        assert rows.loc[rows["category"] == category, "source_index"].between(first, last).all()
    assert rows.loc[rows["category"] == "humanizing", "available"].unique().tolist() == [66]
    # In source order, but for SORRY-Bench, whose ids do not follow its order.
    assert all(
        own.is_monotonic_increasing
        for _, own in rows[rows["source"] != "sorrybench"].groupby("category")["source_index"]
    )


def test_published_gaps_give_every_category_the_gap_of_its_own_split():
    gaps = published_gaps()
    assert list(gaps.index) == list(CATEGORY_IDS)
    rows = published_manifest()["rows"]
    for category, split in (("safety_core", "WildGuard_all"), ("advice", "SorryBench_Advice")):
        assert gaps[category] == pytest.approx(rows[split]["hr_proj_mean"] - rows[split]["bc_proj_mean"], abs=1e-3)
    assert (round(gaps.min(), 1), round(gaps.max(), 1)) == (91.8, 147.9)


def test_published_stability_gives_every_category_the_row_of_its_own_source():
    found = published_stability()
    assert list(found.index) == list(CATEGORY_IDS)
    rows = published_table(8).set_index("category")["mean"]
    assert found.loc["safety_core", "mean"] == rows["WildGuard-Mix (all)"]
    assert found.loc["crime_assistance", "mean"] == rows["SorryBench (crimes/torts)"]
    pooled = {"SorryBench (all)", "CoCoNot (all)"}  # of several categories: of none here
    assert sorted(found["mean"]) == sorted(rows.drop(pooled))
    assert found["std"].between(0, 0.02).all()
