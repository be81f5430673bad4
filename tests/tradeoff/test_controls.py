import torch

from refusal_utils.directions.direction_set import DirectionSet, Provenance
from refusal_utils.tradeoff.controls import OURS, control_directions, with_controls


def test_controls_keep_the_directions_and_say_what_they_are():
    generator = torch.Generator().manual_seed(0)
    spread = torch.linspace(0.2, 3, 16)
    answered = spread * torch.randn(400, 16, generator=generator)
    means = {"a": 4 * torch.eye(16)[0], "b": 2 * torch.eye(16)[1]}
    refused = {name: mean + spread * torch.randn(400, 16, generator=generator) for name, mean in means.items()}
    own = DirectionSet.from_states(refused, answered, Provenance(layer=4))
    found, kinds = with_controls(own, refused, answered, n=60, seed=0)
    assert list(found)[:4] == ["a", "b", "pooled", "random 0"]
    assert [list(kinds.values()).count(kind) for kind in (OURS, "pooled", "random", "covariance")] == [2, 1, 60, 60]
    assert torch.equal(found.vectors[:2], own.vectors)
    pooled = torch.cat([*refused.values()]).mean(0) - answered.mean(0)
    assert torch.allclose(found["pooled"] * found.gap("pooled"), pooled, atol=1e-5)
    assert torch.allclose(found.gaps[3:], own.gaps.mean())
    uniform, shaped = found.vectors[3:63].square().mean(0), found.vectors[63:].square().mean(0)
    assert float(torch.corrcoef(torch.stack([shaped, spread.square()]))[0, 1]) > 0.9
    assert float(uniform.std()) < 0.5 * float(shaped.std())


def test_there_are_five_controls_of_each_kind_unless_more_are_asked_for():
    refused = {"a": torch.randn(6, 8, generator=torch.Generator().manual_seed(1))}
    answered = torch.randn(6, 8, generator=torch.Generator().manual_seed(2))
    own = DirectionSet.from_states(refused, answered, Provenance(layer=4))
    names = [f"{kind} {number}" for kind in ("random", "covariance") for number in range(5)]
    assert list(control_directions(own, refused, answered)) == names
    assert list(with_controls(own, refused, answered)[0]) == ["a", "pooled", *names]
