"""Methods are found by themselves; every one finds a planted direction, whatever the axes and the order of prompts."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from refusal_utils.directions import DirectionSet, Provenance
from refusal_utils.methods import METHODS, StateMethod, named_method

# At this size each method must find the direction within 18 degrees, whatever the seed.
D_MODEL, N_PROMPTS, GAP = 24, 384, 2.0
# A map divides the prompts among its neurons, so that each direction is known from a small share of them.
COSINE = defaultdict(lambda: 0.95, som_directions=0.75)
READING = {name: method for name, method in METHODS.items() if isinstance(method, StateMethod)}


@dataclass
class PlantedStudy:
    """A study whose refused states lie `GAP` from the answered ones along `direction`, in noise of unit variance."""

    noise: float = 1.0
    n: int = N_PROMPTS
    seed: int = 0
    rotation: Tensor | None = None
    chat: Any = None
    direction: Tensor = field(init=False)
    states: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        draw = torch.Generator().manual_seed(self.seed)
        self.direction = torch.nn.functional.normalize(torch.randn(D_MODEL, generator=draw), dim=0)
        shifts = {"advice": GAP, "humanizing": GAP, "answered": 0.0}
        noise = {name: self.noise * torch.randn(self.n, D_MODEL, generator=draw) for name in shifts}
        self.states = {name: noise[name] + shifts[name] * self.direction + 1.0 for name in shifts}
        if self.rotation is not None:
            self.direction = self.direction @ self.rotation
            self.states = {name: rows @ self.rotation for name, rows in self.states.items()}

    def sides(self, layer=None, pos=None):
        return {name: rows for name, rows in self.states.items() if name != "answered"}, self.states["answered"]

    def provenance(self, layer=None, pos=None):
        return Provenance(3 if layer is None else layer, -2 if pos is None else pos, draw="d1")

    def confidence(self):
        return None


def cosines(first: DirectionSet, second: DirectionSet) -> Tensor:
    """The cosine between the directions of each name."""
    assert first.names == second.names
    return (first.vectors * second.vectors).sum(-1)


def test_the_usual_method_is_among_those_found():
    assert {"difference_in_means"} <= set(READING)
    for name, method in METHODS.items():
        assert method.name == name
        assert method.title
        assert method.source


@pytest.mark.parametrize("name", READING)
def test_every_method_recovers_a_planted_direction_and_less_of_it_in_noise(name):
    found = {}
    for noise in (1.0, 30.0):
        study = PlantedStudy(noise)
        found[noise] = METHODS[name].fit(study).vectors @ study.direction
    assert found[1.0].max() > COSINE[name]
    assert found[30.0].max() < 0.6


@pytest.mark.parametrize("name", READING)
def test_directions_point_from_answered_to_refused_and_their_gap_is_the_distance_along_them(name):
    study = PlantedStudy()
    refused, answered = study.sides()
    directions = METHODS[name].fit(study)
    everything = torch.cat([*refused.values()])
    for each, direction in directions.items():
        distance = (refused.get(each, everything).mean(0) - answered.mean(0)) @ direction
        assert distance > -1e-6
        assert directions.gap(each) == pytest.approx(float(distance), abs=1e-4)


@pytest.mark.parametrize("name", READING)
def test_directions_turn_with_the_states(name):
    rotation = torch.linalg.qr(torch.randn(D_MODEL, D_MODEL, generator=torch.Generator().manual_seed(1)))[0]
    plain, turned = (METHODS[name].fit(PlantedStudy(rotation=each)) for each in (None, rotation))
    assert cosines(plain, turned).abs().min() < 0.9  # before control: the axes did change
    back = DirectionSet(turned.names, turned.vectors @ rotation.T, turned.gaps, turned.provenance)
    assert cosines(plain, back).min() > 0.999


@pytest.mark.parametrize("name", READING)
def test_directions_are_the_same_twice_and_in_any_order_of_prompts(name):
    study, shuffled = PlantedStudy(), PlantedStudy()
    first, again = (METHODS[name].fit(study) for _ in range(2))
    assert torch.equal(first.vectors, again.vectors)
    order = torch.randperm(N_PROMPTS, generator=torch.Generator().manual_seed(2))
    shuffled.states = {each: rows[order] for each, rows in shuffled.states.items()}
    assert cosines(first, METHODS[name].fit(shuffled)).min() > 0.999


@pytest.mark.parametrize("name", READING)
def test_pooled_prompts_are_one_side_and_categories_can_be_chosen(name):
    study = PlantedStudy()
    pooled = METHODS[name].fit(study, pooled=True)
    assert "advice" not in pooled.names
    assert (pooled.vectors @ study.direction).max() > COSINE[name]
    one = METHODS[name].fit(study, categories=["advice"], layer=5, pos=-1)
    assert "humanizing" not in one.names
    assert (one.provenance.layer, one.provenance.pos) == (5, -1)


@pytest.mark.parametrize("name", READING)
def test_the_provenance_records_the_method_and_its_options_and_survives_a_file(name, tmp_path):
    directions = METHODS[name].fit(PlantedStudy())
    assert (directions.provenance.estimator, directions.provenance.draw) == (name, "d1")
    assert directions.provenance.settings["reads"] == READING[name].reads
    assert set(METHODS[name].options) <= set(directions.provenance.settings)
    assert len(directions.provenance.settings["norms"]) == len(directions)
    loaded = DirectionSet.load(directions.save(tmp_path / "set.safetensors"))
    assert loaded.provenance.settings == directions.provenance.settings
    torch.testing.assert_close(loaded.vectors, directions.vectors)


@pytest.mark.parametrize("name", READING)
def test_a_feature_that_never_varies_does_no_harm(name):
    study = PlantedStudy()
    for rows in study.states.values():
        rows[:, 0] = 7.0
    vectors = METHODS[name].fit(study).vectors
    assert vectors.isfinite().all()
    assert (vectors @ study.direction).max() > min(0.8, COSINE[name])


@pytest.mark.parametrize("name", READING)
def test_bad_states_are_one_sentence(name):
    study = PlantedStudy()
    study.states["answered"] = study.states["answered"][:0]
    with pytest.raises(
        ValueError, match=rf"^{name}: there must be at least \d+ prompts on every side; got 0 of answered"
    ):
        METHODS[name].fit(study)
    study = PlantedStudy()
    study.states["humanizing"][7, 3] = torch.nan
    with pytest.raises(ValueError, match=rf"^{name}: states must be finite; got prompt 7 of humanizing at layer 3"):
        METHODS[name].fit(study)
    study = PlantedStudy()
    study.states = {each: torch.ones(N_PROMPTS, D_MODEL) for each in study.states}
    with pytest.raises(ValueError, match=r"^\w+: .*; got"):
        METHODS[name].fit(study)
    with pytest.raises(
        ValueError, match=rf"^{name}: the categories must be among those drawn, advice, humanizing; got"
    ):
        METHODS[name].fit(PlantedStudy(), categories=["riddles"])
    with pytest.raises(ValueError, match=rf"^{name}: .*; got strenght"):
        METHODS[name].fit(PlantedStudy(), strenght=1)


def test_the_vectors_norm_is_kept_apart_from_the_gap():
    tripled = StateMethod(
        name="tripled", title="t", source="s", find=lambda refused, answered: {"advice": -3 * torch.eye(D_MODEL)[0]}
    )
    study = PlantedStudy()
    directions = tripled.fit(study, categories=["advice"])
    distance = (study.states["advice"].mean(0) - study.states["answered"].mean(0))[0]
    assert directions["advice"].tolist() == [float(distance.sign()), *[0.0] * (D_MODEL - 1)]
    assert directions.gap("advice") == pytest.approx(abs(float(distance)), rel=1e-5)
    assert directions.provenance.settings["norms"] == [3.0]


def test_an_unknown_method_is_an_error_that_lists_the_known_ones():
    with pytest.raises(
        ValueError, match="^named_method: the method must be one of .*difference_in_means.*; got 'means'"
    ):
        named_method("means")
