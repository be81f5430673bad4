"""Directions of latents: a planted latent is the direction, controls are not, and alignment is 1 if it writes it."""

import pytest
import torch

from refusal_utils.directions import DirectionSet, Provenance
from refusal_utils.latents import latent_firing
from refusal_utils.latents.sae_directions import alignment, part_directions, sae_directions

from .test_firing import SIDES, identity_sae, planted

LAYER = 16  # resid_pre of the layer after the one whose output the autoencoder reads


@pytest.fixture
def found():
    sides = planted(n=200)
    directions = DirectionSet.from_states({name: sides[name] for name in SIDES}, sides["benign"], Provenance(LAYER))
    return identity_sae(), sides, latent_firing(identity_sae(), sides), directions


def test_the_mean_of_the_two_planted_rows_is_found_and_random_ones_are_not(found):
    sae, _, firing, directions = found
    own = sae_directions(sae, firing, directions, k=2, n_random=4)
    for number, name in enumerate(SIDES):
        planted_row = torch.zeros(16)
        planted_row[[0, 1 + number]] = 2**-0.5
        torch.testing.assert_close(own[name], planted_row)
        assert own.gap(name) == pytest.approx(directions.gap(name) * float(own[name] @ directions[name]))
    controls = [name for name in own if name.startswith("random")]
    assert len(controls) == 8
    assert max(abs(float(own[name] @ own["advice"])) for name in controls) < 0.99
    assert own.provenance.layer == LAYER


def test_alignment_is_the_cosine_with_what_is_written(found):
    sae, sides, firing, directions = found
    aligned = alignment(sae, sides, firing, directions, k=2)
    table = aligned.table()
    assert [box.name for box in aligned.figure().data] == ["Unqualified advice", "Unsupported", "Humanizing"]
    expected = [float(directions[name][[0, 1 + number]].sum()) / 2**0.5 for number, name in enumerate(SIDES)]
    assert table["mean"].tolist() == pytest.approx(expected, abs=1e-5)
    assert table["std"].max() < 1e-5  # the two fire with amount 1 on every prompt
    assert table["silent"].tolist() == [0, 0, 0]


def test_parts_are_mean_rows_and_empty_tails_are_left_out(found):
    sae, _, _, directions = found
    parts = part_directions(sae, directions, [0], {"advice": [1, 4], "humanizing": []})
    assert [*parts] == ["core", "tail advice"]
    torch.testing.assert_close(parts["core"], torch.eye(16)[0])
    torch.testing.assert_close(parts["tail advice"], (torch.eye(16)[1] + torch.eye(16)[4]) / 2**0.5)


def test_directions_of_another_layer_are_refused(found):
    sae, sides, firing, directions = found
    moved = DirectionSet(directions.names, directions.vectors, directions.gaps, Provenance(LAYER + 1))
    with pytest.raises(ValueError, match="sae_directions: this SAE reads resid_post of layer 15"):
        sae_directions(sae, firing, moved, 2)
    with pytest.raises(ValueError, match="alignment: this SAE reads resid_post of layer 15"):
        alignment(sae, sides, firing, moved, 2)
