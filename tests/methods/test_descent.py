"""Descent on the sphere: it finds a closed-form minimum, stays on the sphere, and goes on after it was killed."""

import pytest
import torch

from refusal_utils.methods.descent import Descent, Schedule, descend, unit_rows

D = 16
SCHEDULE = Schedule(n_updates=60, rate=0.05)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def towards(target, noise=0.0):
    """Minimised on the sphere by `target`: the losses are parts of |point - target|^2."""

    def objective(update, point):
        gradient = point - target + noise * draw(update, *point.shape)
        return (point - target).square().flatten().reshape(-1, 4).sum(0)[:3], gradient

    return objective


def test_a_known_minimum_is_found_along_unit_vectors():
    target = unit_rows(draw(0, 1, D))
    start = unit_rows(draw(3, 1, D))
    found = descend("f", start, towards(target), schedule=SCHEDULE, retract=unit_rows)
    assert float((start * target).sum()) < 0.5  # before control
    assert float((found.points[-1] * target).sum()) > 0.999
    torch.testing.assert_close(found.points.norm(dim=-1), torch.ones(60, 1))


def test_the_part_of_the_gradient_along_the_vector_does_nothing():
    start, along = unit_rows(draw(3, 2, D)), draw(4, 2, D)
    found = [
        descend(
            "f", start, lambda n, x, more=more: (torch.zeros(3), along + more * x), schedule=Schedule(n_updates=3),
            retract=unit_rows,
        ).points[-1]
        for more in (0.0, 5.0)
    ]  # fmt: skip
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=0)
    assert not torch.allclose(found[0], start, atol=1e-2)  # control


def test_a_killed_descent_goes_on_as_if_it_had_not_been(tmp_path):
    target, start = unit_rows(draw(0, 1, D)), unit_rows(draw(3, 1, D))
    objective, how = towards(target, noise=0.3), {"schedule": Schedule(n_updates=9), "retract": unit_rows}
    whole = descend("f", start, objective, **how)
    calls = []

    def killed(update, point):
        calls.append(update)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return objective(update, point)

    path = tmp_path / "descent.safetensors"
    with pytest.raises(KeyboardInterrupt):
        descend("f", start, killed, path=path, **how)
    found = descend("f", start, killed, path=path, **how)
    assert calls == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8]
    assert torch.equal(found.points, whole.points)
    assert torch.equal(found.losses, whole.losses)
    assert torch.equal(descend("f", start, killed, path=path, **how).points, whole.points)
    assert len(calls) == 10  # nothing is left to do
    assert [each.name for each in tmp_path.iterdir()] == ["descent.safetensors"]


def test_the_rate_is_cut_without_progress_and_training_ends_after_the_last_cut():
    def with_totals(*totals):
        losses = torch.tensor(totals)[:, None].expand(-1, 3) / 3
        return Descent(torch.zeros(len(totals), 1, D), losses, {})

    schedule = Schedule(n_updates=100, patience=3, n_cuts=1)
    assert with_totals(5.0, 4.0, 3.0, 3.5, 3.5).cuts(schedule) == 0
    once = with_totals(5.0, 4.0, 3.0, 3.5, 3.5, 3.5)
    assert (once.cuts(schedule), once.is_over(schedule)) == (1, False)
    twice = with_totals(5.0, 4.0, 3.0, 3.5, 3.5, 3.5, 2.0, 2.5, 2.5, 2.5)
    assert (twice.cuts(schedule), twice.is_over(schedule)) == (2, True)
    assert once.is_over(Schedule(n_updates=6, patience=3))
    assert (twice.cuts(Schedule()), twice.is_over(Schedule(n_updates=11))) == (0, False)  # the paper's: no patience
