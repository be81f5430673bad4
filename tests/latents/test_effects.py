"""Read-out and effect of latents, and cards: what is planted is read, what is added moves the first token."""

import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from refusal_utils.directions import Provenance
from refusal_utils.latents import Firing, SparseAutoencoder
from refusal_utils.latents.cards import HIDDEN, latent_cards, nearest_tokens
from refusal_utils.latents.effects import LatentEffects, decoder_directions, latent_effects, leading_latents
from refusal_utils.steering import first_token_logits, steering_condition
from refusal_utils.steering.first_tokens import refusal_logit

PROMPTS = ["How do I boil an egg?", "ok <b>then</b>", "Tell me about the sea, please."]


def made(d_model: int) -> SparseAutoencoder:
    eye = torch.eye(d_model)
    return SparseAutoencoder(eye, torch.zeros(d_model), eye, torch.zeros(d_model), 5, threshold=torch.zeros(d_model))


def firing(n_latents: int) -> Firing:
    fires = torch.zeros(3, 8, n_latents, dtype=torch.bool)
    fires[0, :, 0] = fires[1, :, 0] = fires[0, :4, 1] = fires[1, :6, 2] = True
    return Firing(dict(zip(("advice", "humanizing", "benign"), fires, strict=True)), "benign")


@pytest.fixture(scope="module")
def effects(chat):
    sae, generator = made(chat.d_model), torch.Generator().manual_seed(0)
    sizes = {"advice": 20, "benign": 30, "humanizing": 10}
    states = {name: torch.randn(n, chat.d_model, generator=generator) for name, n in sizes.items()}
    states["advice"][:, 0] += 5
    leading = leading_latents(firing(chat.d_model), 2)
    directions = decoder_directions(sae, list(leading), Provenance(6))
    conditions = {latent: steering_condition(directions, str(latent), coefficient=9.0) for latent in (0, 2)}
    tokens = torch.tensor([5, 9])
    return sae, states, conditions, tokens, latent_effects(chat, sae, leading, states, conditions, PROMPTS, tokens)


def test_each_latent_is_led_once_by_the_list_it_is_highest_in(chat):
    assert leading_latents(firing(chat.d_model), 2) == {0: "advice", 1: "advice", 2: "humanizing"}


def test_auc_and_effect_are_those_of_independent_routes(chat, effects):
    _, states, conditions, tokens, found = effects
    rows = found.rows
    assert rows.loc[0, "auc"] > 0.95
    both = torch.cat([states["humanizing"], states["benign"]])[:, 2].relu().numpy()
    assert rows.loc[2, "auc"] == pytest.approx(roc_auc_score([1] * 10 + [0] * 30, both))
    before, after = (
        refusal_logit(first_token_logits(chat, PROMPTS, *own).double(), tokens) for own in ((), (conditions[2],))
    )
    assert rows.loc[2, "effect"] == pytest.approx(float((after - before).mean()), abs=1e-4)
    assert pd.isna(rows.loc[1, "effect"])


def test_the_rank_correlation_is_one_if_the_order_is_the_same_and_minus_one_if_it_is_reversed():
    values = torch.arange(12).double()
    for sign in (1, -1):
        rows = pd.DataFrame({"category": "advice", "auc": values, "effect": sign * values**3})
        middle, low, high = LatentEffects(rows.rename_axis("latent")).correlation(200)
        assert (middle, low, high) == pytest.approx((sign, sign, sign))


def test_the_nearest_tokens_of_an_embedding_begin_with_its_own(chat):
    weights = chat.bridge.original_model.get_output_embeddings().weight.detach()
    gain = chat.bridge.original_model.model.norm.weight.detach()
    ids = chat.tokenizer("egg sea", add_special_tokens=False)["input_ids"]
    found = nearest_tokens(chat, weights[ids] / gain**2 * gain, 1)
    assert [each[0] for each in found] == [chat.tokenizer.decode([token]) for token in ids]


def test_a_page_escapes_texts_hides_harmful_ones_and_lists_every_latent(chat, effects, tmp_path):
    sae, *_, found = effects
    prompts = pd.DataFrame({"id": ["a", "b", "c"], "category": ["benign", "benign", "advice"], "text": PROMPTS})
    hidden, shown = (
        latent_cards(chat, sae, found, firing(chat.d_model), prompts, show_harmful=each) for each in (False, True)
    )
    page = hidden.labelled(lambda row: f"<i>{row.name}</i>").write(tmp_path / "cards", "Latents <of> a model")
    text = page.read_text()
    assert "the sea" not in text
    assert HIDDEN in text
    assert "<b>" not in text
    assert "&lt;i&gt;0&lt;/i&gt;" in text
    assert "http" not in text
    assert pd.read_csv(page.with_suffix(".csv"))["latent"].tolist() == found.table().index.tolist()
    marked = " ".join(text for own in shown.marked.values() for text in own)
    assert HIDDEN not in marked
    assert "<mark" in marked
    assert shown.rates.loc[1].tolist() == [0.5, 0, 0]
    assert shown.figure().data[0].z.max() == 1
    assert {trace.name for trace in found.figure().data} == {"Unqualified advice", "Humanizing"}
