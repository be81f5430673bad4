"""Cones: sampling, growth and checks on a closed-form toy, and shares of directions inside."""

import dataclasses

import pandas as pd
import pytest
import torch

from refusal_utils.directions import DirectionSet, Provenance
from refusal_utils.methods import METHODS, cones, rdo
from refusal_utils.methods.candidates import Candidates
from refusal_utils.methods.cone_results import Cone, ConeSearch, share_inside
from refusal_utils.methods.cones import orthonormal_rows, sampled_mixtures
from refusal_utils.methods.descent import Schedule
from refusal_utils.methods.losses import Losses
from refusal_utils.methods.rdo import random_rows
from refusal_utils.methods.targets import Targets
from refusal_utils.methods.training import Training
from refusal_utils.steering.given_responses import GivenResponse

D = 12
PLANTED = torch.eye(D)[:3]


@dataclasses.dataclass(frozen=True, eq=False)
class ToyLosses(Losses):
    """Least in the span of the first `rank` axes, where a direction refuses: every loss is its part outside."""

    rank: int = 2

    def of_rows(self, kind, given, directions):
        return 1 - inside(directions, self.rank)


def inside(directions, rank):
    return (directions @ PLANTED[:rank].T).square().sum(-1)


class ToyTraining(Training):
    def scores(self, directions):
        part = inside(directions, self.losses.rank)
        return pd.DataFrame({"bypass": (0.9 - part).numpy(), "induce": (part - 0.9).numpy(), "kl": 0.05})


def toy(chat, rank=2):
    rows = [GivenResponse([1] * n, 1) for n in range(2, 12)]
    losses = ToyLosses("cones", chat, Targets(rows, rows, rows), 3, 2.0, rank=rank)
    texts = ["text"] * 4
    candidates = Candidates((3,), (-1,), torch.ones(1, 1, D), torch.ones(1, 1, D), texts, texts, texts, texts)
    return ToyTraining(losses, candidates, torch.eye(D)[0], 3, -1, "toy")


@pytest.fixture
def search(chat, monkeypatch):
    """`cones` on the toy, of whatever rank."""

    def run(rank=2, **options):
        monkeypatch.setattr(cones, "prepare", lambda *_, **__: toy(chat, rank))
        for module in (cones, rdo):
            monkeypatch.setattr(module, "random_rows", lambda n, d_model, seed: random_rows(n, D, seed))
        how = {"k": 4, "n_updates": 60, "n_prompts": 6, "rate": 0.1, "n_draws": 4, **options}
        return cones.cones(chat, pd.DataFrame(), **how)

    return run


def test_a_planted_plane_is_found_and_the_cone_does_not_grow_beyond_it(search, capsys):
    found = search()
    assert len(found.cones) == 3
    assert found.table()["holds"].tolist() == [True, True, False]
    basis = found.best.basis
    assert len(basis) == 2
    torch.testing.assert_close(basis @ basis.T, torch.eye(2), atol=1e-5, rtol=0)
    assert basis[:, 2:].abs().max() < 0.35
    assert "cones: the cone of dimension 3 does not hold: of 67 directions " in capsys.readouterr().out
    assert found.best.samples["misses"].eq("").all()
    assert len(found.best.samples) == 2 + 64
    assert found.figure(title="t").data
    assert list(found.directions(Provenance(3, -1))) == ["cone_1", "cone_2"]


def test_a_complete_search_grows_to_k_and_survives_the_way_through_a_file(search, tmp_path):
    found = search(rank=1, k=3, n_updates=40, complete=True)
    assert found.table()["holds"].tolist() == [True, False, False]
    every = found.directions(Provenance(3, -1), every=True, complete=True)
    assert list(every)[:3] == ["cone_1_1", "cone_2_1", "cone_2_2"]
    loaded = ConeSearch.of(DirectionSet.load(every.save(tmp_path / "cones.safetensors")))
    pd.testing.assert_frame_equal(loaded.table(), found.table(), check_dtype=False)
    assert torch.equal(loaded.best.basis, found.best.basis)
    with pytest.raises(ValueError, match="^cones: the search must know its training; got none"):
        loaded.directions(Provenance(3, -1))
    with pytest.raises(ValueError, match="^ConeSearch.of: the set must hold every cone of a search; got cones"):
        ConeSearch.of(found.directions(Provenance(3, -1)))


def test_the_first_cone_is_the_direction_of_rdo_and_shares_its_file(search, chat, tmp_path):
    found = search(k=2, cache_dir=tmp_path)
    files = sorted(path.name.partition("_")[0] for path in tmp_path.iterdir())
    assert files == ["cones", "rdo"]
    own = toy(chat)
    own = dataclasses.replace(own, losses=dataclasses.replace(own.losses, function="rdo"))
    before = sorted(tmp_path.iterdir())
    alone = rdo.train_direction(own, Schedule(n_updates=60, rate=0.1), 6, cache_dir=tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    assert torch.equal(found.cones[0].basis[0], alone.direction)


def test_a_killed_search_goes_on_as_if_it_had_not_been(search, tmp_path, monkeypatch):
    whole = search(n_updates=25)
    gradient, calls = ToyLosses.gradient, []

    def killed(self, *given):
        calls.append(1)
        if len(calls) == 30:  # in the second cone
            raise KeyboardInterrupt
        return gradient(self, *given)

    monkeypatch.setattr(ToyLosses, "gradient", killed)
    with pytest.raises(KeyboardInterrupt):
        search(n_updates=25, cache_dir=tmp_path)
    found = search(n_updates=25, cache_dir=tmp_path)
    assert len(found.cones) == len(whole.cones)
    for own, other in zip(found.cones, whole.cones, strict=True):
        assert torch.equal(own.basis, other.basis)
        pd.testing.assert_frame_equal(own.samples, other.samples)


def test_a_cone_that_cannot_grow_is_one_sentence(search, chat):
    nothing = search(rate=1e-9)
    assert len(nothing.cones) == 1
    with pytest.raises(
        ValueError, match="^cones: a single direction must hold .*; got one that misses bypass <= 0, ind"
    ):
        _ = nothing.best
    for k in (0, 193):
        with pytest.raises(ValueError, match=f"^cones: k must be from 1 to the width of the model, 192; got {k}"):
            cones.cones(chat, pd.DataFrame(), k=k)


def test_mixtures_are_uniform_on_the_part_of_the_sphere_without_negative_coordinates():
    drawn = sampled_mixtures(4000, 2, seed=0)
    torch.testing.assert_close(drawn.norm(dim=-1), torch.ones(4000))
    angles = torch.atan2(drawn[:, 1], drawn[:, 0])
    assert (angles >= 0).all()
    counts = torch.histc(angles, 6, 0, torch.pi / 2)
    assert counts.min() > 0.85 * 4000 / 6
    assert counts.max() < 1.15 * 4000 / 6


def test_the_first_row_keeps_its_direction_in_an_orthonormal_basis():
    rows = random_rows(3, D, 4)
    basis = orthonormal_rows(rows)
    torch.testing.assert_close(basis @ basis.T, torch.eye(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(basis[0], rows[0])
    assert float(basis[1] @ rows[1]) > 0
    torch.testing.assert_close(rows @ basis.T @ basis, rows, atol=1e-5, rtol=0)  # the same span


def test_the_share_inside_a_cone_is_that_of_the_nearest_point_by_least_squares():
    from scipy.optimize import nnls

    basis, directions = orthonormal_rows(random_rows(3, D, 1)), random_rows(20, D, 2)
    own = share_inside(directions, basis, True)
    for direction, share in zip(directions.numpy(), own.tolist(), strict=True):
        _, left = nnls(basis.numpy().T, direction)
        assert share == pytest.approx(1 - left**2, abs=1e-5)
    assert (share_inside(directions, basis, False) >= own - 1e-6).all()


def test_shares_compare_directions_with_random_ones_and_with_the_best_span():
    cone = Cone(torch.eye(D)[:2], pd.DataFrame({"misses": [""]}))
    vectors = torch.stack([torch.eye(D)[0], -torch.eye(D)[1], torch.eye(D)[5]])
    found = cone.shares(DirectionSet(("a", "b", "c"), vectors, torch.ones(3), Provenance(3)))
    assert found.shares["cone"].tolist() == [1.0, 0.0, 0.0]
    assert found.shares["span of the cone"].tolist() == [1.0, 1.0, 0.0]
    assert found.shares["best span"].sum() == pytest.approx(2.0)
    assert 0.1 < found.chance["cone"] < found.chance["span of the cone"] < 0.6
    assert list(found.table().index) == ["a", "b", "c", "random, 95 %"]
    assert len(found.figure(title="t").data) == 3


def test_the_method_lists_its_options():
    assert METHODS["cones"].trains
    assert {"k", "kl", "n_updates", "place", "seed"} <= set(METHODS["cones"].options)


def test_a_search_knows_its_training(chat):
    cone = Cone(PLANTED[:1], pd.DataFrame({"misses": [""], "bypass": [-1.0], "induce": [1.0], "kl": [0.0]}))
    found = ConeSearch((cone,), toy(chat)).directions(Provenance(1, -4), k=1)
    assert (found.provenance.layer, found.provenance.pos, found.provenance.estimator) == (3, -1, "cones")
    assert found.gap("cone_1") == 2.0
