"""The shipped autoencoders: their sizes, their card, and the model that they belong to."""

import re
from functools import partial
from types import SimpleNamespace

import pandas as pd
import pytest

from refusal_utils.bundled.saes import FOLDER, LAYERS, main, study_sae, training_chats
from refusal_utils.latents import explained_variance, load_sae
from refusal_utils.latents.command import train_and_measure
from refusal_utils.latents.training import N_SAMPLES
from refusal_utils.model.batching import count_rows
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
    assert (card["explained at the decision state"] >= 0.95).all()
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) < 12e6


def test_a_study_gets_the_autoencoder_of_its_decision_state_and_none_of_another_model(chat, tmp_path, capsys):
    study = SimpleNamespace(chat=chat, model="bundled", cache_dir=tmp_path, prompts=None)
    sae = study_sae(study)
    assert sae.resid_pre_layer == chat.decision_layer
    assert f"{sae.n_latents} latents of resid_post, layer {sae.layer}" in capsys.readouterr().out
    other = SimpleNamespace(chat=SimpleNamespace(name="google/gemma-2-9b-it"), model="google/gemma-2-9b-it")
    with pytest.raises(ValueError, match="study_sae: this SAE was trained on bundled; got google/gemma-2-9b-it"):
        study_sae(other, str(FOLDER / f"layer_{LAYERS[0]}"))


def test_a_study_of_another_model_trains_its_own_on_short_responses_and_measures_it_on_few(chat, tmp_path, monkeypatch):
    pytest.importorskip("sae_lens", exc_type=ImportError)
    small = partial(train_and_measure, n_latents=64, l0=16, n_samples=2048)
    monkeypatch.setattr("refusal_utils.bundled.saes.train_and_measure", small)
    prompts = load_prompts().groupby(["split", "kind"]).head(2)
    held_out = prompts[prompts["split"] == "eval"]
    study = SimpleNamespace(
        chat=chat, model="copy", cache_dir=tmp_path, prompts=prompts, held_out=lambda n: held_out.head(n)
    )
    sae = study_sae(study, max_new_tokens=3, n=5)
    assert (sae.n_latents, sae.resid_pre_layer) == (64, chat.decision_layer)
    card = next(tmp_path.rglob("README.md")).read_text()
    assert "Measured on 5 held-out chats" in card
    train = chat.encode(list(prompts.loc[prompts["split"] == "train", "text"]))
    n_tokens = int(re.search(r"all (\d+) tokens", card)[1]) - sum(len(ids) for ids in train)
    assert 0 < n_tokens <= 3 * len(train)


@pytest.fixture
def trainings(monkeypatch):
    """What a study asks to be trained, (prompts, folder, options) each; a shipped autoencoder stands for the result."""
    asked, shipped = [], load_sae(FOLDER / f"layer_{LAYERS[0]}", "sae_lens")

    def noted(chat, prompts, layers, folder, **options):
        asked.append((prompts, folder, options))

    monkeypatch.setattr("refusal_utils.bundled.saes.train_and_measure", noted)
    monkeypatch.setattr("refusal_utils.bundled.saes.load_sae", lambda place, kind: shipped)
    return asked


def test_few_prompts_are_seen_as_often_as_all_and_the_result_is_kept_apart(chat, tmp_path, trainings):
    prompts = load_prompts()
    n_train = (prompts["split"] == "train").sum()
    study = SimpleNamespace(
        chat=chat, model="copy", cache_dir=tmp_path, prompts=prompts, held_out=lambda n: prompts.head(0)
    )
    for n in (3, 10_000, None):
        study_sae(study, n_trained=n)
    (few, apart, options), (every, _, as_often), (whole, folder, default) = trainings
    assert few.groupby("category").size().eq(3).all()
    assert set(few["split"]) == {"train"}
    assert options["n_samples"] / len(few) == pytest.approx(N_SAMPLES / n_train, rel=1e-3)
    assert (len(every), as_often["n_samples"]) == (n_train, N_SAMPLES)
    assert whole is prompts
    assert "n_samples" not in default
    assert folder in apart.parents
    assert tmp_path in folder.parents


def test_a_layer_that_is_not_shipped_is_trained_into_the_cache(chat, tmp_path, trainings):
    prompts = load_prompts()
    elsewhere = SimpleNamespace(name=chat.name, short_name=chat.short_name, decision_layer=2)
    study = SimpleNamespace(
        chat=elsewhere, model="bundled", cache_dir=tmp_path, prompts=prompts, held_out=lambda n: prompts.head(0)
    )
    study_sae(study)
    assert [tmp_path in folder.parents for _, folder, _ in trainings] == [True]


def test_no_training_prompt_is_one_of_the_eval_split(chat, monkeypatch):
    monkeypatch.setattr("refusal_utils.bundled.saes.own_chats", lambda *_, **__: [])
    held_out = {tuple(ids) for ids in chat.encode(list(load_prompts(split="eval")["text"]))}
    given = training_chats(chat, None, n_examples=60)
    assert len(given) > 50
    assert not held_out & {tuple(each.ids) for each in given}


@pytest.mark.slow
def test_the_command_trains_measures_and_goes_on_where_it_was_killed(tmp_path, capsys):
    pytest.importorskip("sae_lens", exc_type=ImportError)
    own, out = tmp_path / "prompts.jsonl", tmp_path / "saes"
    load_prompts().groupby(["category", "split"]).head(1).to_json(own, orient="records", lines=True)
    small = ["--examples", "20", "--latents", "64", "--l0", "8", "--samples", "1024", "--layers", "3", "5"]
    asked = [str(tmp_path / "cache"), "--out", str(out), "--prompts", str(own), *small]
    main(asked)
    table = pd.read_csv(out / "quality.csv", index_col=0)
    assert table.index.tolist() == [3, 5]
    assert "cross-entropy recovered" in capsys.readouterr().out
    assert "12 of them with the model's own greedy response" in (out / "README.md").read_text()
    weights = {path: path.read_bytes() for path in out.rglob("*.safetensors")}
    assert len(weights) == 2
    next(iter(weights)).unlink()  # as if killed before it was written
    with count_rows() as count:
        main(asked)
    assert {path: path.read_bytes() for path in out.rglob("*.safetensors")} == weights
    # The cross-entropy of 12 held-out chats, as it is, and twice for each layer; no state is captured again.
    assert count.rows == 12 * (1 + 2 * 2)
    pd.testing.assert_frame_equal(pd.read_csv(out / "quality.csv", index_col=0), table)
