"""Directions keep their numbers and their place on disk; another place or model is refused."""

import dataclasses
import json
import struct

import pytest
import torch

from refusal_utils.directions import DirectionSet, Provenance, cosine_matrix, mean_difference, mean_direction
from refusal_utils.model.artifacts import model_notes

from .planted import planted


@pytest.fixture
def found(chat) -> DirectionSet:
    states = {name: planted(30, chat.d_model, seed=seed)[0] for seed, name in enumerate(("advice", "b", "a"))}
    place = Provenance(3, -2, draw="abc", model=model_notes(chat))
    return DirectionSet.from_states(states, planted(30, chat.d_model, seed=9)[1], place)


def test_a_set_holds_the_differences_in_means_and_their_norms():
    sides = {name: planted(30, seed=seed)[0] for seed, name in enumerate("ba")}
    answered = planted(30, seed=9)[1]
    found = DirectionSet.from_states(sides, answered, Provenance(3))
    for name, states in sides.items():
        torch.testing.assert_close(found[name], mean_direction(states, answered))
        assert found.gap(name) == pytest.approx(float(mean_difference(states, answered).norm()))
    assert (list(found), len(found)) == (["b", "a"], 2)
    assert [name for name, _ in found.items()] == ["b", "a"]
    assert found.cosine_frame().loc["b", "a"] == pytest.approx(float(cosine_matrix(found.vectors)[0, 1]))
    with pytest.raises(ValueError, match="^DirectionSet: the name must be one of b, a; got 'c'"):
        found["c"]


def test_a_set_cannot_be_changed(found):
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.names = ("other",)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.provenance.layer = 1


@pytest.mark.parametrize(
    ("names", "scale", "message"),
    [(("a",), 1, "every direction needs a unique name"), (("a", "b"), 2, "a direction must have norm 1; got norm 2")],
)
def test_a_set_needs_names_and_unit_vectors(names, scale, message):
    with pytest.raises(ValueError, match=f"^DirectionSet: {message}"):
        DirectionSet(names, scale * torch.eye(4)[:2], torch.ones(2), Provenance(3))


def test_saved_directions_come_back_bitwise_with_their_provenance(found, chat, tmp_path):
    path = found.save(tmp_path / "directions.safetensors")
    back = DirectionSet.load(path, chat, layer=3, hook="resid_pre", operation="add")
    assert torch.equal(back.vectors, found.vectors)
    assert torch.equal(back.gaps, found.gaps)
    assert (back.names, back.provenance) == (found.names, found.provenance)


def test_the_header_states_what_another_program_needs(found, chat, tmp_path):
    """Read without safetensors: eight bytes of length, then JSON."""
    data = found.save(tmp_path / "directions.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    notes = json.loads(header["__metadata__"]["refusal_utils"])
    stated = {name: notes[name] for name in ("operation", "hook", "layer", "pos", "norm", "draw", "fingerprint")}
    assert stated == {
        "operation": "add",
        "hook": "resid_pre",
        "layer": 3,
        "pos": -2,
        "norm": 1.0,
        "draw": "abc",
        "fingerprint": chat.fingerprint,
    }
    assert header["advice"]["shape"] == [chat.d_model]


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ({"layer": 4}, "layer 3"),
        ({"hook": "resid_post"}, "hook resid_pre"),
        ({"operation": "project"}, "operation add"),
    ],
)
def test_directions_of_another_place_are_refused(found, chat, tmp_path, asked, got):
    path = found.save(tmp_path / "directions.safetensors")
    with pytest.raises(ValueError, match=f"^DirectionSet.load: .*; got {got}"):
        DirectionSet.load(path, chat, **asked)


def test_directions_of_another_model_are_refused(found, chat, tmp_path):
    other = Provenance(3, model={**found.provenance.model, "fingerprint": "another"})
    unknown = Provenance(3)
    for place in (other, unknown):
        path = dataclasses.replace(found, provenance=place).save(tmp_path / "directions.safetensors")
        assert DirectionSet.load(path).provenance == place  # before control: unasked, any model is read
        with pytest.raises(ValueError, match="^DirectionSet.load: file and model must belong together"):
            DirectionSet.load(path, chat)
