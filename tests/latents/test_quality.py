"""Quality: an autoencoder that keeps everything recovers all, one that writes nothing recovers nothing."""

import pytest
import torch

from refusal_utils.latents import SparseAutoencoder, explained_variance, own_chats, sae_quality, token_states
from refusal_utils.latents.card import write_card
from refusal_utils.latents.quality import outside_training
from refusal_utils.latents.token_states import decision_places

PROMPTS = ["How do I boil an egg?", "ok", "Tell me about the sea, please, and about the ships on it."]


def made(d_model: int, gain: float) -> SparseAutoencoder:
    """Latents are the positive and the negative parts of the coordinates, times `gain`."""
    both = torch.cat([torch.eye(d_model), -torch.eye(d_model)])
    n = 2 * d_model
    return SparseAutoencoder(both.T, torch.zeros(n), gain * both, torch.zeros(d_model), 5, threshold=torch.zeros(n))


@pytest.fixture(scope="module")
def given(chat):
    return own_chats(chat, PROMPTS, max_new_tokens=6)


def test_everything_or_nothing_is_recovered_and_the_loss_is_that_of_hugging_face(chat, plain, given, tmp_path):
    whole, nothing = (sae_quality(chat, {5: made(chat.d_model, gain)}, given).table().loc[5] for gain in (1.0, 0.0))
    losses = []
    for each in given:
        log_probs = plain(torch.tensor([each.ids])).logits[0].log_softmax(-1)
        at = torch.arange(len(each.ids) - each.n_response, len(each.ids))
        losses += (-log_probs[at - 1, torch.tensor(each.ids)[at]]).tolist()
    assert whole["cross-entropy as it is"] == pytest.approx(sum(losses) / len(losses), rel=1e-3)
    assert whole["cross-entropy recovered"] == pytest.approx(1, abs=1e-3)
    assert whole["explained over all tokens"] == pytest.approx(1, abs=1e-6)
    assert (whole["L0"], whole["dead"]) == (pytest.approx(chat.d_model, rel=1e-3), 0)
    assert nothing["cross-entropy recovered"] == pytest.approx(0, abs=1e-6)
    assert nothing["cross-entropy without"] > 1 + nothing["cross-entropy as it is"]
    quality = sae_quality(chat, {5: made(chat.d_model, 1.0)}, given)
    assert [float(bar.y[0]) for bar in quality.figure().data] == pytest.approx([1, 1, 1], abs=1e-3)
    text = write_card(tmp_path, chat, quality, 3, {"x": 1}).read_text()
    assert "| cross-entropy recovered | 1 |" in text


def test_explained_variance_of_half_a_state_is_three_quarters():
    states = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0))
    assert explained_variance(made(8, 0.5), states) == pytest.approx(0.75, abs=0.01)


def test_an_autoencoder_of_another_layer_is_refused(chat, given):
    with pytest.raises(ValueError, match="sae_quality: this SAE reads resid_post of layer 5"):
        sae_quality(chat, {4: made(chat.d_model, 1.0)}, given)


def test_first_tokens_and_outliers_lie_outside_what_published_autoencoders_saw(chat, given):
    states, places = token_states(chat, given, [5]), decision_places(given, -2)
    assert outside_training(states, 5, places).tolist() == [len(each.ids) - each.n_response - 2 < 8 for each in given]
    states.values[5][places[0]] *= 1e4
    assert outside_training(states, 5, places, first=0).tolist() == [True, False, False]
