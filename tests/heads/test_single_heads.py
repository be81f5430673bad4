import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from refusal_utils.heads.attribution import HeadAttribution
from refusal_utils.heads.replacement import HeadTrial
from refusal_utils.heads.single_heads import SingleHeads, ablate_single_heads
from refusal_utils.prompts.categories import CATEGORY_IDS


def singles(seed, tie=0.0):
    """Shares and effects of 24 heads in 4 layers; layers differ as a whole, and a head's effects go together."""
    generator = np.random.default_rng(seed)
    rows = []
    for layer in range(4):
        for head in range(6):
            share, own = generator.normal(size=11) + generator.normal(), generator.normal()
            effect = 2 * layer + own + generator.normal(size=11) + tie * share
            heads = {"category": CATEGORY_IDS, "layer": layer, "head": head}
            rows.append(pd.DataFrame({**heads, "attribution": 2 * layer + share, "effect": effect}))
    return SingleHeads(pd.concat(rows, ignore_index=True))


def test_the_rank_test_counts_neither_layers_nor_categories_as_evidence():
    planted = [singles(seed) for seed in range(60)]
    none = [each.rank_test(n_draws=100, seed=seed) for seed, each in enumerate(planted)]
    plain = [spearmanr(each.pairs["attribution"], each.pairs["effect"]) for each in planted]
    assert [each["rho"] for each in none] == pytest.approx([each.statistic for each in plain])
    assert np.mean([each["p"] < 0.05 for each in none]) <= 0.12
    assert all(each.pvalue < 1e-6 for each in plain)  # before control: pairs counted as independent
    assert np.mean([each["null"] for each in none]) > 0.3  # what the layers explain


def test_the_rank_test_finds_heads_whose_share_is_their_effect():
    tied = singles(0, tie=2.0)
    found = tied.rank_test(n_draws=200).to_dict()
    assert found["p"] < 0.01
    assert found["rho"] > found["null high"] > found["null"]
    shuffled = SingleHeads(tied.pairs.sample(frac=1, random_state=1))  # rows in any order
    assert shuffled.rank_test(n_draws=200).to_dict() == pytest.approx(found)


def test_the_numbers_are_those_of_the_rank_test_and_the_slope_and_the_summary_tells_them():
    tied = singles(0, tie=2.0)
    found = tied.numbers(seed=3)
    assert found == {**tied.rank_test(seed=3), "slope": tied.slope}
    assert all(f"{value:.{3 if name == 'p' else 2}f}" in tied.summary(seed=3) for name, value in found.items())


def test_the_slope_is_that_of_effects_over_shares():
    pairs = singles(0).pairs
    found = SingleHeads(pairs.assign(effect=1.5 * pairs["attribution"]))
    assert found.slope == pytest.approx(1.5)
    assert found.by_layer()["rank correlation"].tolist() == pytest.approx([1] * 4)
    furthest = found.table(3)
    assert furthest["attribution"].abs().min() >= pairs["attribution"].abs().nlargest(3).min()


class Trial(HeadTrial):
    """Three heads per layer; ablating one takes its number from a prompt's projection, twice it in `humanizing`."""

    prompts = pd.DataFrame({"category": ["humanizing", "advice", "advice"]})

    def __init__(self):
        pass

    def ablate(self, heads):
        return [own[0] if own else (0, 0) for own in heads]

    def projections(self, heads):
        return torch.tensor([9.0 - (3 * layer + head) * (1 + (row == 0)) for row, (layer, head) in enumerate(heads)])


@pytest.fixture
def attribution():
    """Contributions of 2 x 3 heads to two categories; to the second half of those to the first."""
    values = torch.tensor([[0.0, 1.0, -7.0], [3.0, 4.0, 5.0]])[..., None] * torch.tensor([1.0, 0.5])
    empty = (pd.DataFrame(), pd.Series(dtype=float))
    return HeadAttribution(("advice", "humanizing"), *[values] * 4, *empty, "here")


def test_single_heads_are_ablated_one_at_a_time_largest_contribution_first(attribution):
    pairs = ablate_single_heads(Trial(), attribution, 3).pairs
    assert pairs[["layer", "head"]].drop_duplicates().to_numpy().tolist() == [[0, 2], [1, 2], [1, 1]]
    assert pairs["category"].tolist() == ["advice", "humanizing"] * 3
    assert pairs["attribution"].tolist() == [-7, -3.5, 5, 2.5, 4, 2]
    assert pairs["effect"].tolist() == [2, 4, 5, 10, 4, 8]
    assert len(ablate_single_heads(Trial(), attribution, 40).pairs) == 12  # all, if there are fewer
    with pytest.raises(ValueError, match="^top_heads: k must be at least 1; got 0"):
        ablate_single_heads(Trial(), attribution, 0)
