"""Directions of parallel prompts: what two languages share, and what they only share because their prompts do."""

import pytest
import torch

from refusal_utils.directions import Provenance, mean_direction
from refusal_utils.geometry.parallel import ParallelStates

D_MODEL, N_PAIRS = 40, 16
PLACE = Provenance(3, -1)


def made(noise: float, same_noise: bool = False, seed: int = 0) -> ParallelStates:
    """Three languages: `a` and `b` have one direction, `c` another that is orthogonal to it."""
    draw = torch.Generator().manual_seed(seed)
    signal = torch.stack([torch.eye(D_MODEL)[0], torch.eye(D_MODEL)[0], torch.eye(D_MODEL)[1]])[:, None]
    sides = noise * torch.randn(2, 3, N_PAIRS, D_MODEL, generator=draw)
    if same_noise:
        sides[:, 1] = sides[:, 0]
    return ParallelStates(("a", "b", "c"), signal + sides[0], sides[1])


def test_directions_are_differences_in_means_of_all_or_some_pairs():
    states = made(0.5)
    some = torch.tensor([1, 4, 7])
    for pairs, chosen in ((None, torch.arange(N_PAIRS)), (some, some)):
        found = states.directions(PLACE, pairs)
        for number, name in enumerate("abc"):
            expected = mean_direction(states.refused[number, chosen], states.answered[number, chosen])
            torch.testing.assert_close(found[name], expected, atol=1e-5, rtol=1e-4)


def test_a_shared_direction_reaches_the_ceiling_and_another_one_does_not():
    table = made(0.12).table()
    assert table.loc[("a", "b"), "of ceiling"] == pytest.approx(1, abs=0.1)
    assert abs(table.loc[("a", "c"), "of ceiling"]) < 0.2
    assert (table["ceiling"] < 0.99).all()  # control: there is noise


def test_languages_that_share_only_their_noise_agree_on_the_same_pairs_but_not_across_halves():
    noisy = made(1.0, same_noise=True)
    only_noise = ParallelStates(noisy.languages, noisy.refused - noisy.refused.mean(1, keepdim=True), noisy.answered)
    assert only_noise.cosines().loc["a", "b"] == pytest.approx(1, abs=1e-5)
    assert only_noise.across_halves().loc["a", "b"] < 0.3


def test_cosines_survive_a_rotation_and_half_cosines_are_those_of_plain_halves():
    states = made(0.5)
    turn = torch.linalg.qr(torch.randn(D_MODEL, D_MODEL, generator=torch.Generator().manual_seed(1)))[0]
    turned = ParallelStates(states.languages, states.refused @ turn, states.answered @ turn)
    torch.testing.assert_close(
        torch.tensor(turned.across_halves(20).to_numpy()),
        torch.tensor(states.across_halves(20).to_numpy()),
        atol=1e-4,
        rtol=0,
    )
    order = torch.randperm(N_PAIRS, generator=torch.Generator().manual_seed(0))
    first, second = (states.directions(PLACE, half) for half in (order[:8], order[8:]))
    plain = (first["a"] @ second["c"] + second["a"] @ first["c"]) / 2
    assert states.across_halves(1).loc["a", "c"] == pytest.approx(float(plain), abs=1e-5)
    (drawn,) = states.figure(title="Cosines").data
    assert drawn.z[0][2] == pytest.approx(states.across_halves().loc["a", "c"], abs=1e-4)


def test_too_few_pairs_are_refused():
    states = made(0.5)
    with pytest.raises(ValueError, match="^ParallelStates: there must be at least 4 pairs of prompts; got 3"):
        ParallelStates(states.languages, states.refused[:, :3], states.answered[:, :3])
