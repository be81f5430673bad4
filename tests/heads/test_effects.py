import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ttest_rel

from refusal_utils.heads.effects import HeadEffects, replace_top_heads, same_layer_heads
from refusal_utils.heads.refusal_opening import RefusalOpening
from refusal_utils.heads.replacement import HeadTrial


def test_random_heads_come_from_the_same_layers_and_are_others():
    heads = [(1, 0), (1, 3), (4, 2)]
    draws = same_layer_heads(heads, 6, 20)
    assert len({tuple(draw) for draw in draws}) > 1
    for draw in draws:
        assert sorted(layer for layer, _ in draw) == [1, 1, 4]
        assert len(set(draw)) == 3
        assert not set(draw) & set(heads)
    assert same_layer_heads([(0, head) for head in range(5)], 6, 1) == [[(0, 5)]]
    assert same_layer_heads(heads, 6, 0) == []


def effects(before, after):
    return HeadEffects(pd.Series(["x"] * len(before)), before, {"moved": after})


def test_changes_are_paired_and_their_intervals_cover_at_their_rate():
    inside = []
    for seed in range(300):
        generator = np.random.default_rng(seed)
        before = pd.DataFrame({"a": 10 * generator.normal(size=80), "b": generator.normal(size=80)})
        after = before.assign(a=before["a"] + 0.5 + generator.normal(size=80), b=before["b"] - 1)
        found = effects(before, after).table().loc["moved"]
        inside.append(found.loc["a", "low"] <= 0.5 <= found.loc["a", "high"])
    assert 0.91 <= np.mean(inside) <= 0.98
    test = ttest_rel(after["a"], before["a"]).confidence_interval(0.95)  # Student's t, so a little wider
    assert found.loc["a", "change"] == pytest.approx((after["a"] - before["a"]).mean())
    assert found.loc["a", "low"] == pytest.approx(test.low, abs=0.01)
    assert found.loc["b"].tolist() == pytest.approx([-1, -1, -1])


def test_changes_leave_out_what_was_not_measured():
    before = pd.DataFrame({"a": np.arange(10.0)})
    after = before + np.linspace(0, 2, 10)[:, None]
    some = after.where(np.arange(10)[:, None] >= 6)
    assert effects(before, some).table().iloc[0].tolist() == pytest.approx(
        effects(before[6:], after[6:]).table().iloc[0].tolist()
    )
    assert effects(before, after).table().iloc[0]["change"] == pytest.approx(1)


OPENING = RefusalOpening(torch.tensor([1]), ("I",), pd.Series(dtype=float))
TOP = {"advice": [(0, 0), (1, 1)], "humanizing": [(1, 2), (1, 3)]}


class Trial(HeadTrial):
    """Heads whose replacement takes 1 from the projection if they are top heads, and 0.1 if they are not."""

    n_heads = 4
    prompts = pd.DataFrame({"category": ["advice", "advice", "humanizing"]})

    def __init__(self):
        pass

    def ablate(self, heads):
        return list(zip(self.prompts["category"], heads, strict=True))

    patch = ablate

    def measure(self, conditions, opening):
        falls = [sum(1 if head in TOP[name] else 0.1 for head in heads) for name, heads in conditions]
        refused = [float(fall < 1) for fall in falls]
        return pd.DataFrame({"projection": [5 - fall for fall in falls], "refused": refused})


@pytest.mark.parametrize("n_random", [0, 2])
def test_top_heads_are_compared_with_random_heads_if_there_are_any(n_random):
    found = replace_top_heads(Trial(), TOP, OPENING, n_random=n_random)
    labels = ["ablate top", "patch top"] + ["ablate random", "patch random"] * (n_random > 0)
    assert set(found.after) == set(labels)
    change = found.table()["change"].unstack()
    assert change.loc["ablate top"].tolist() == pytest.approx([-2, -1])
    if n_random:
        assert change.loc["patch random"].tolist() == pytest.approx([-0.2, 0])
    assert found.by_category("ablate top").loc["humanizing"].tolist() == pytest.approx([-2, -1])
    assert found.change("ablate top", "refused").startswith("-1.00 (")
    assert (found.change("ablate random", "refused") == "not measured") == (n_random == 0)
    shares = found.refused()
    assert shares["nothing replaced"].tolist() == [1, 1]
    assert shares["patch top"].tolist() == [0, 0]
    assert shares["not judged"].tolist() == [0, 0]
    assert {trace.name for trace in found.figure().data} == {"nothing replaced", *labels}


def test_there_are_no_controls_if_every_head_is_a_top_head():
    every = [(layer, head) for layer in (0, 1) for head in range(4)]
    found = replace_top_heads(Trial(), dict.fromkeys(TOP, every), OPENING, n_random=2)
    assert set(found.after) == {"ablate top", "patch top"}


def test_a_prompt_that_is_not_judged_once_counts_in_no_share_of_that_replacement():
    before = pd.DataFrame({"refused": [1.0, 1.0, 0.0]})
    found = effects(before, before.assign(refused=[float("nan"), 0.0, 1.0])).refused()
    assert found.loc["x"].to_dict() == {"nothing replaced": pytest.approx(2 / 3), "moved": 0.5, "not judged": 1}
