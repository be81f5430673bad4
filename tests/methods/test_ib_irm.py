"""The four probes on the published unit tests of invariance, and on categories as environments.

Examples 1 to 3: Aubin et al., arXiv 2102.10867, with five invariant features, five spurious ones and three
environments. In a test environment the spurious features are shuffled.
"""

import pandas as pd
import pytest
import torch
from torch import Tensor

from refusal_utils.methods import METHODS
from refusal_utils.methods.ib_irm import deal, fit_probes, leave_one_out, minimise

from .test_methods import PlantedStudy

N = 1000
NONE, IRM, IB, BOTH = {"irm": 0.0, "ib": 0.0}, {"irm": 0.5, "ib": 0.0}, {"irm": 0.0, "ib": 0.5}, {"irm": 0.5, "ib": 0.5}


class Example:
    """One of the three examples: its world, and samples of its environments."""

    def __init__(self, number: int, seed: int) -> None:
        self.number, self.draw = number, torch.Generator().manual_seed(seed)
        self.to_y, self.to_z, self.spurious = self.noise(5, 5) / 5, self.noise(5, 5) / 5, self.noise(3, 5)

    def noise(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.draw, dtype=torch.float64)

    def sample(self, env: int, *, shuffled: bool) -> tuple[Tensor, Tensor]:
        invariant, spurious, labels = (self.causes, self.cows_and_camels, self.small_margin)[self.number - 1](env)
        if shuffled:
            spurious = spurious[torch.randperm(N, generator=self.draw)]
        return torch.cat([invariant, spurious], 1), labels

    def causes(self, env: int) -> tuple[Tensor, Tensor, Tensor]:
        """The invariant features cause the target, which causes the spurious ones; its noise differs."""
        scale = (0.1, 1.5, 2.0)[env]
        invariant = scale * self.noise(N, 5)
        target = invariant @ self.to_y + scale * self.noise(N, 5)
        return invariant, target @ self.to_z + self.noise(N, 5), target.sum(1)

    def cows_and_camels(self, env: int) -> tuple[Tensor, Tensor, Tensor]:
        """The animal, a hundred times fainter than its ground, decides; the ground mostly agrees with it."""
        p, s = ((0.95, 0.3), (0.97, 0.5), (0.99, 0.7))[env]
        kinds = torch.tensor([p * s, (1 - p) * s, p * (1 - s), (1 - p) * (1 - s)])
        kind = torch.multinomial(kinds, N, replacement=True, generator=self.draw)
        animal, ground = torch.tensor([1.0, 1, -1, -1])[kind, None], torch.tensor([1.0, -1, -1, 1])[kind, None]
        invariant = 0.01 * (self.noise(N, 5) / 10**0.5 + animal)
        return invariant, self.noise(N, 5) / 10**0.5 + ground, (invariant.sum(1) > 0).double()

    def small_margin(self, env: int) -> tuple[Tensor, Tensor, Tensor]:
        """The invariant margin is small; the spurious one is large, along an axis of its own in every environment."""
        labels = (torch.arange(N) % 2).double()
        sign = 1 - 2 * labels[:, None]
        return 0.1 * (self.noise(N, 5) + sign), 0.1 * self.noise(N, 5) + sign * self.spurious[env], labels

    def error(self, penalties: dict[str, float], *, decay: float = 1e-6, oracle: bool = False) -> float:
        """The test error of the probe; an oracle is trained on shuffled spurious features."""
        train = [self.sample(env, shuffled=oracle) for env in range(3)]
        features, labels = (torch.cat([*parts]) for parts in zip(*train, strict=True))
        one = torch.ones(1, 3 * N, dtype=torch.float64) / (3 * N)
        three = torch.eye(3, dtype=torch.float64).repeat_interleave(N, 1) / N
        shares = three if penalties["irm"] else one
        squared = self.number == 1
        weights, offset = minimise(features, labels, shares, decay=decay, squared=squared, **penalties)
        features, labels = self.sample(1, shuffled=True)
        score = features @ weights + offset
        wrong = (score - labels).square() if squared else (score > 0) != labels.bool()
        return float(wrong.double().mean())


def errors(number: int, **options: float) -> pd.DataFrame:
    """Test errors of the four objectives (columns) on three samples of an example, and of the oracle."""
    named = {"ERM": NONE, "IRM": IRM, "IB-ERM": IB, "IB-IRM": BOTH}
    rows = [{name: Example(number, seed).error(each, **options) for name, each in named.items()} for seed in range(3)]
    return pd.DataFrame(rows).assign(oracle=[Example(number, seed).error(NONE, oracle=True) for seed in range(3)])


def test_example_1_invariance_removes_the_effects_of_the_target():
    found = errors(1).mean()
    assert found["IRM"] < 0.5 * (found["ERM"] + found["oracle"])  # most of the excess error is gone
    assert found["ERM"] > 1.1 * found["oracle"]  # before control


def test_example_2_the_bottleneck_removes_the_ground():
    found = errors(2, decay=1e-5)
    assert found[["IB-ERM", "IB-IRM", "oracle"]].max().max() < 0.05
    assert found[["ERM", "IRM"]].min().min() > 0.3


def test_example_3_is_beyond_all_four_as_published():
    found = errors(3)
    assert found.drop(columns="oracle").min().min() > 0.4
    assert found["oracle"].max() < 0.05


def spoiled(seed: int = 0) -> dict[str, Tensor]:
    """Categories and benign prompts that differ along axis 0 everywhere, and along an axis of each category's own."""
    draw = torch.Generator().manual_seed(seed)
    states = {name: torch.randn(150, 12, generator=draw) for name in ("advice", "humanizing", "incomplete", "benign")}
    for i, name in enumerate(("advice", "humanizing", "incomplete")):
        states[name][:, 0] += 3
        states[name][:, 1 + i] += 3
    return states


def test_a_category_left_out_is_told_by_what_is_common():
    states = spoiled()
    answered = states.pop("benign")
    result = leave_one_out(deal(states, answered))
    assert list(result.accuracy) == ["ERM", "IRM", "IB-ERM", "IB-IRM"]
    assert list(result.table().index) == [*states, "mean", "lowest"]
    assert result.accuracy.min().min() > 0.75
    assert result.table().loc["mean"].tolist() == pytest.approx(result.accuracy.mean().tolist())
    assert result.figure().data[0].z.shape == (5, 4)
    chance = {name: (rows, rows[torch.randperm(150)]) for name, rows in states.items()}
    shifted = {name: (rows + 1e-2, answered) for name, (rows, answered) in chance.items()}
    assert leave_one_out(shifted).accuracy.mean().mean() == pytest.approx(0.5, abs=0.05)  # before control


def test_benign_prompts_are_dealt_once_and_in_any_order_alike():
    states = spoiled()
    answered = states.pop("benign")
    dealt = deal(states, answered)
    together = torch.cat([benign for _, benign in dealt.values()])
    assert sorted(together[:, 0].tolist()) == sorted(answered[:, 0].tolist())
    shuffled = deal(states, answered[torch.randperm(150, generator=torch.Generator().manual_seed(1))])
    assert all(torch.equal(dealt[name][1], shuffled[name][1]) for name in states)


def test_an_environment_with_one_label_is_an_error():
    states = spoiled()
    answered = states.pop("benign")
    must = "every environment needs refused and answered prompts"
    with pytest.raises(ValueError, match=f"^deal: {must}; got 2 answered for 3"):
        deal(states, answered[:2])
    with pytest.raises(ValueError, match=f"^fit_probes: {must}; got 150 and 0 in humanizing"):
        fit_probes({"advice": (states["advice"], answered), "humanizing": (states["humanizing"], answered[:0])})
    with pytest.raises(
        ValueError, match="^fit_probes: the objective must be one of erm, irm, ib_erm, ib_irm; got vrex"
    ):
        METHODS["ib_irm"].fit(PlantedStudy(), objective="vrex")
    with pytest.raises(ValueError, match="^leave_one_out: there must be at least two environments; got 1"):
        leave_one_out({"advice": (states["advice"], answered)})


def test_the_unit_of_the_states_does_not_matter():
    states = spoiled()
    answered = states.pop("benign")
    plain, scaled = (fit_probes(deal({n: u * rows for n, rows in states.items()}, u * answered)) for u in (1.0, 40.0))
    for name, probe in plain.items():
        torch.testing.assert_close(scaled[name].weights * 40, probe.weights, rtol=1e-3, atol=1e-4)
        assert torch.equal(probe.refused(answered), scaled[name].refused(40 * answered))
