"""The shipped autoencoders: their sizes, their card, and the model that they belong to."""

from types import SimpleNamespace

import pandas as pd
import pytest

from refusal_utils.bundled.saes import FOLDER, LAYERS, study_sae, training_chats
from refusal_utils.latents import explained_variance, load_sae
from refusal_utils.model.capture import capture_activations
from refusal_utils.prompts.loading import load_prompts


@pytest.mark.parametrize("layer", LAYERS)
def test_a_shipped_autoencoder_explains_the_decision_state_as_its_card_says(layer, chat):
    sae, card = load_sae(FOLDER / f"layer_{layer}", "sae_lens"), pd.read_csv(FOLDER / "quality.csv", index_col=0)
    texts = list(load_prompts(split="eval")["text"][::13])
    states = capture_activations(chat, texts, layers=[layer + 1]).at(layer + 1, chat.decision_pos)
    assert explained_variance(sae, states) == pytest.approx(
        card.loc[layer, "explained at the decision state"], abs=0.02
    )
    assert (sae.layer, sae.hook, sae.model) == (layer, "resid_post", "bundled")
    assert sae.n_latents >= 2048


def test_the_card_has_the_measures_asked_for_and_all_files_together_are_small():
    card = pd.read_csv(FOLDER / "quality.csv", index_col=0)
    assert tuple(card.index) == LAYERS
    assert (card["cross-entropy recovered"] >= 0.9).all()
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) < 12e6


def test_a_study_gets_the_autoencoder_of_its_decision_state_and_none_of_another_model(chat, tmp_path, capsys):
    study = SimpleNamespace(chat=chat, model="bundled", cache_dir=tmp_path, prompts=None)
    sae = study_sae(study)
    assert sae.resid_pre_layer == chat.decision_layer
    assert f"{sae.n_latents} latents of resid_post, layer {sae.layer}" in capsys.readouterr().out
    other = SimpleNamespace(chat=SimpleNamespace(name="google/gemma-2-9b-it"), model="google/gemma-2-9b-it")
    with pytest.raises(ValueError, match="study_sae: this SAE was trained on bundled; got google/gemma-2-9b-it"):
        study_sae(other, str(FOLDER / f"layer_{LAYERS[0]}"))


def test_no_training_prompt_is_one_of_the_eval_split(chat, monkeypatch):
    monkeypatch.setattr("refusal_utils.bundled.saes.own_chats", lambda *_, **__: [])
    monkeypatch.setattr("refusal_utils.bundled.saes.N_EXAMPLES", 60)
    held_out = {tuple(ids) for ids in chat.encode(list(load_prompts(split="eval")["text"]))}
    given = training_chats(chat, None)
    assert len(given) > 50
    assert not held_out & {tuple(each.ids) for each in given}
