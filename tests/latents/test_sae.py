"""Sparse autoencoders: a strict threshold, latents removed with the error kept, and the place they read."""

import copy

import pytest
import torch

from .sae_files import D_MODEL, LAYER, N, sae, weights


@pytest.fixture
def states():
    return torch.randn(20, D_MODEL, generator=torch.Generator().manual_seed(2))


def test_a_latent_at_its_threshold_does_not_fire():
    own = weights()
    at = torch.zeros(D_MODEL)
    before = own["b_enc"].clone()
    exact = sae(threshold=before.clamp(min=0))
    assert not exact.encode(at).any()
    assert (exact.encode(at) == 0).all()
    below = sae(threshold=torch.nextafter(before, torch.tensor(-torch.inf)).clamp(min=0))
    assert torch.equal(below.encode(at) > 0, before > 0)


def test_subtracting_the_bias_shifts_the_encoder_by_what_it_reads_of_the_bias(states):
    plain, own = sae(subtracts_bias=True), weights()
    shifted = sae(b_enc=own["b_enc"] - own["b_dec"] @ own["w_enc"])
    torch.testing.assert_close(plain.encode(states), shifted.encode(states), atol=1e-5, rtol=1e-5)
    assert not torch.equal(plain.encode(states) > 0, sae().encode(states) > 0)


def test_removing_nothing_changes_nothing_and_removing_all_leaves_bias_and_error(states):
    own = sae()
    assert torch.equal(own.without(states, []), states)
    rest = own.b_dec + own.error(states)
    torch.testing.assert_close(own.without(states, range(N)), rest, atol=1e-5, rtol=1e-5)


def test_removing_latents_is_decoding_without_them_plus_the_error(states):
    own, gone = sae(), [3, 5, 17]
    latents = own.encode(states)
    latents[:, gone] = 0
    torch.testing.assert_close(own.without(states, gone), own.decode(latents) + own.error(states), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(own.without(states, gone), own.decode(latents))


def test_the_direction_of_latents_is_the_mean_row_of_the_decoder():
    rows = weights()["w_dec"][[1, 2]]
    mean = (rows[0] + rows[1]) / 2
    torch.testing.assert_close(sae().direction([1, 2]), mean / mean.norm())


def test_the_output_of_a_block_is_the_input_of_the_next():
    own = sae()
    own.require_place("f", LAYER, "resid_post")
    own.require_place("f", LAYER + 1)
    with pytest.raises(
        ValueError, match=f"^f: this SAE reads resid_post of layer {LAYER}, which is resid_pre of layer {LAYER + 1}"
    ):
        own.require_place("f", LAYER)
    before = sae(hook="resid_pre")
    before.require_place("f", LAYER)
    with pytest.raises(ValueError, match="^f: this SAE reads resid_pre"):
        before.require_place("f", LAYER + 1)


@pytest.mark.parametrize(
    ("changes", "must"),
    [
        ({"b_dec": torch.zeros(3)}, "b_dec must have the shape"),
        ({"w_dec": torch.zeros(D_MODEL, N)}, "w_dec must have the shape"),
        ({"w_enc": torch.full((D_MODEL, N), torch.nan)}, "w_enc must be finite"),
        ({"k": 4}, "an SAE must have either"),
        ({"threshold": None}, "an SAE must have either"),
        ({"threshold": None, "k": N + 1}, "k must be from 1"),
    ],
)
def test_weights_that_cannot_be_an_sae_are_refused(changes, must):
    unchecked = copy.copy(sae())  # the type checker of the tests would come first otherwise
    for name, value in changes.items():
        object.__setattr__(unchecked, name, value)
    with pytest.raises(ValueError, match=f"^SparseAutoencoder: {must}"):
        unchecked.__post_init__()


def test_states_of_another_width_and_latents_that_do_not_exist_are_refused(states):
    with pytest.raises(ValueError, match="^encode: states must have the SAE's width"):
        sae().encode(states[:, :5])
    with pytest.raises(ValueError, match="^without: latents must be numbers"):
        sae().without(states, [N])
    with pytest.raises(ValueError, match="^direction: at least one latent"):
        sae().direction([])


@pytest.mark.parametrize(
    ("own", "asked", "same"),
    [
        ("gemma-2-9b-it", "google/gemma-2-9b-it", True),
        ("", "anything/else", True),
        ("meta-llama/Meta-Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct", True),
        ("Qwen/Qwen3-1.7B-Base", "Qwen/Qwen3-1.7B", True),
        ("gemma-2-9b-it", "google/gemma-2-2b-it", False),
        ("bundled", "smollm2", False),
    ],
)
def test_an_sae_belongs_to_its_model_and_to_one_tuned_from_it(own, asked, same):
    if same:
        sae(model=own).require_model("f", asked)
        return
    with pytest.raises(ValueError, match="f: this SAE was trained on"):
        sae(model=own).require_model("f", asked)
