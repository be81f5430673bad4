"""Published numbers about latents beside ours; the tests write the files of notebook 14 themselves."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from refusal_utils.paper.comparison import compare, compare_latents
from refusal_utils.paper.latent_matches import ALIGNMENT, FILLED, OVERLAP, PAIRS, QUALITY, RELEASED, STEERING
from refusal_utils.paper.setting import GEMMA
from refusal_utils.paper.tables import published_overlaps, published_table
from refusal_utils.prompts.categories import CATEGORY_IDS


@pytest.fixture
def write(tmp_path):
    """Writes what notebook 14 writes, with the paper's own numbers of layer 20 up to a shift."""

    def everything(layer: int = 20, n_latents: int = 16_384, n_listed: int = 1000, shift: float = 0.0):
        draw = pd.DataFrame({"category": ["advice"] * 32, "prompts": "paper", "selection": "behaviour"})
        draw.assign(over_refusal="unsafe").to_csv(tmp_path / "01_draw.csv")
        notes = {"layer": [20], "pos": [-2], "decision_source": ["x"]}
        pd.DataFrame(notes).to_csv(tmp_path / "03_map.csv", index=False)
        pd.DataFrame({"layer": [layer], "latents": [n_latents]}).to_csv(tmp_path / QUALITY, index=False)
        aligned = published_table(4).rename(columns={"cosine_mean": "mean", "cosine_std": "std"})
        aligned.assign(mean=aligned["mean"] + shift).to_csv(tmp_path / ALIGNMENT, index=False)
        shared = published_overlaps(20)
        pairs = (shared[[*CATEGORY_IDS]] / 1000).assign(listed=n_listed, unique=shared["unique"] * n_listed // 1000)
        pairs.to_csv(tmp_path / PAIRS)
        own = published_table(5).set_index("layer").loc[20]
        counts = {"share_in_any_list": 1, "share_in_all_lists": 11}
        found = [
            {"lists": n, "k": k, "found": own[name] * n_latents}
            for name, n in counts.items()
            for k in (8, round(1000 * n_latents / 16_384))
        ]
        pd.DataFrame(found).to_csv(tmp_path / OVERLAP, index=False)
        rates = published_table(14).query("beta == 60").rename(columns={"category": "name", "refusal_rate": "RR"})
        rates = rates.rename(columns={"over_refusal_rate": "ORR"}).assign(nats=0.2, judge="wildguard")
        for rate in ("RR", "ORR", "accuracy"):
            rates[f"{rate} low"], rates[f"{rate} high"] = rates[rate] - 0.05, rates[rate] + 0.05
        rates.to_csv(tmp_path / STEERING, index=False)
        return tmp_path

    return everything


def test_released_counts_are_whole_and_add_up_to_the_pooled_ones():
    pooled = sum(published_overlaps(layer) for layer in (9, 20, 31))
    assert pooled.loc["humanizing", "incomplete"] == 2594
    assert pooled.loc["over_refusal", "hate_speech"] == 2878
    assert pooled.loc["crime_assistance", "safety_concerns"] == 2368
    assert pooled["unique"].to_dict() | {"incomplete": 165, "safety_concerns": 257} == pooled["unique"].to_dict()
    for layer in (9, 20, 31):
        shared = published_overlaps(layer)[list(CATEGORY_IDS)].to_numpy()
        assert (shared == shared.T).all()
        assert (np.diag(shared) == 1000).all()
    with pytest.raises(ValueError, match="published_overlaps: the layer must be one of 20, 31, 9; got '12'"):
        published_overlaps(12)


def test_the_papers_own_numbers_stand_beside_the_papers_with_the_reason_why_they_decide_nothing(write):
    frame = compare(write(), GEMMA.model).rows
    own = frame[frame["file"].str.startswith("14")].dropna(subset="ours")
    same = own[(own["table"] == "4") | own["condition"].str.contains("layer 20|beta 60")]
    same = same[~same["condition"].str.startswith("llama")]
    np.testing.assert_allclose(same["ours"], same["theirs"], atol=1e-4)  # printed shares have four decimals
    verdicts = own.groupby("table")["verdict"].unique().map(list).to_dict()
    assert verdicts["4"] == ["agrees"]
    assert {name: each for name, each in verdicts.items() if name != "4"} == {
        name: ["not comparable"] for name in ("3", "5", "14", RELEASED)
    }
    assert set(own.loc[own["table"] == RELEASED, "note"]) == {
        FILLED,
        *(f"16384 latents of the output of layer 20, theirs 16384 of layer {n}; {FILLED}" for n in (9, 31)),
    }
    assert "ours at a cost of 0.20 nats, theirs at beta 30" in set(own.loc[own["table"] == "14", "note"])


def test_cosines_that_differ_from_the_papers_differ(write):
    frame = compare(write(shift=-0.6), GEMMA.model).rows
    assert frame.loc[frame["table"] == "4", "verdict"].value_counts().to_dict() == {"differs": 11}


def test_another_autoencoder_is_named_and_lists_of_the_same_share_of_latents_are_compared(write):
    frame = compare(write(layer=5, n_latents=2048, n_listed=64), "bundled").rows
    own = frame[frame["file"].str.startswith("14")].dropna(subset="ours")
    assert set(own["verdict"]) == {"not comparable"}
    pairs = own[own["table"] == RELEASED]
    assert pairs["note"].str.contains("2048 latents of the output of layer 5, theirs 16384 of layer").all()
    assert pairs["note"].str.contains("lists of 64, theirs of 1000").all()
    shares = own[(own["table"] == "5") & (own["condition"] == "layer 20")]
    assert shares["note"].str.contains("lists of 125, theirs of 1000").all()
    np.testing.assert_allclose(shares["ours"], shares["theirs"])


def test_numbers_by_quantity_have_their_means_and_their_correlation(write):
    found = compare_latents(write(), GEMMA.model).by_quantity()
    pairs = found.loc[(RELEASED, "layer 20", "share of a list in another one")]
    shared = published_overlaps(20)
    mean = np.mean([shared.loc[pair] for pair in combinations(CATEGORY_IDS, 2)]) / 1000
    assert pairs["numbers"] == 55
    assert (pairs["ours"], pairs["theirs"]) == pytest.approx((mean, mean))
    assert pairs["correlation"] == pytest.approx(1)
    assert found.loc[(RELEASED, "layer 9", "share of a list in another one"), "correlation"] < 0.99
    (write() / "07_rates.csv").write_text("half a fi")  # of a notebook that is running
    pd.testing.assert_frame_equal(compare_latents(write(), GEMMA.model).by_quantity(), found)
    assert found["numbers"].sum() == 66 + 99 + 11 + 6 + 198


def test_categories_that_were_not_drawn_and_lists_without_a_latent_are_missing(write):
    folder = write()
    pairs = pd.read_csv(folder / PAIRS, index_col=0).drop(index="over_refusal", columns="over_refusal")
    pairs.loc["advice"], pairs["advice"] = np.nan, 0.0  # of a list without latents
    pairs.loc["advice", ["listed", "unique"]] = 0
    pairs.to_csv(folder / PAIRS)
    frame = compare(folder, GEMMA.model).rows
    own = frame[(frame["table"] == RELEASED) & (frame["condition"] == "layer 20")].set_index("about")
    assert own.loc["Unqualified advice / Over-refusal (unsafe side)", "verdict"] == "missing"
    assert own.loc["Over-refusal (unsafe side)", "verdict"] == "missing"
    assert own.loc["Unqualified advice", "verdict"] == "missing"
    assert own.loc["Hate speech / Crime assistance", "verdict"] == "not comparable"


def test_files_that_are_missing_leave_numbers_missing_and_a_missing_column_is_refused(write, tmp_path):
    frame = compare_latents(tmp_path / "nowhere", "bundled").by_quantity()
    assert set(frame["verdict"]) == {"missing"}
    folder = write()
    pd.read_csv(folder / PAIRS).drop(columns="listed").to_csv(folder / PAIRS, index=False)
    with pytest.raises(ValueError, match="compare: 14_pairs.csv must have columns .* got none called listed"):
        compare(folder, GEMMA.model)
