"""Which direction an edit removed, on copies of the bundled model that are edited in memory only."""

import shutil
from dataclasses import replace
from functools import cache
from importlib import import_module
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from refusal_utils.methods.audit import audit
from refusal_utils.model.capture import capture_activations
from refusal_utils.model.chat_model import BUNDLED_WEIGHTS, load_chat_model
from refusal_utils.workflow.command_line import main

TARGETS = ["advice", "crime_assistance"]


@pytest.fixture(scope="module")
def few(train):
    """Train prompts of three categories and benign ones."""
    return train[train["category"].isin([*TARGETS, "hate_speech", "benign"])]


@pytest.fixture(scope="module")
def direction(chat, train):
    """A category's direction at the decision state, from more train prompts than the audit reads."""

    @cache
    def mean(category: str) -> torch.Tensor:
        texts = list(train.loc[train["category"] == category, "text"].head(96))
        return capture_activations(chat, texts, layers=[6]).values[:, 0, 0].double().mean(0)

    def read(category: str) -> torch.Tensor:
        difference = mean(category) - mean("benign")
        return (difference / difference.norm()).float()

    return read


def edited(edit):
    """The bundled model after `edit` of each matrix that writes to the stream, by a list of (layer, rows to write)."""
    hf = AutoModelForCausalLM.from_pretrained(BUNDLED_WEIGHTS, dtype=torch.float32).eval()
    with torch.no_grad():
        hf.lm_head.weight = torch.nn.Parameter(hf.lm_head.weight.clone())  # it shares the embeddings' matrix
        edit(-1, hf.model.embed_tokens.weight.data.T)
        for number, block in enumerate(hf.model.layers):
            for matrix in (block.self_attn.o_proj, block.mlp.down_proj):
                edit(number, matrix.weight.data)
    return load_chat_model(BUNDLED_WEIGHTS, hf_model=hf)


def without(direction, share=1.0, layers=range(-1, 8)):
    """Takes a share of what is written along `direction` away: a change of rank 1 of every matrix of these layers."""

    def edit(layer, matrix):
        if layer in layers:
            matrix -= share * torch.outer(direction, direction @ matrix)

    return edit


@pytest.mark.parametrize("category", TARGETS)
def test_the_direction_that_was_removed_is_named_and_others_lose_no_more_than_their_overlap(chat, direction, category):
    found = audit(chat, edited(without(direction(category))), n_draws=300)
    table = found.table()
    assert found.named == [table.index[0]] == [category]
    assert table["verdict"].iloc[0] == "removed"
    assert table["lost"].iloc[0] > 0.7  # the direction that was removed is not quite the one that 16 prompts give
    rest = table.drop(category)
    assert (rest["lost"] <= rest["overlap"] + rest[["random", "redraw"]].max(axis=1)).all()
    assert rest["lost"].max() < table["lost"].iloc[0] / 2
    assert set(rest["verdict"]) <= {"unchanged", "moved", f"shared with {category}"}
    assert table["layers"].iloc[0] == "1 2 3 4 5 6 7"
    shown = {trace.name for trace in found.figure(title="Lost").data}
    assert len(shown) == 11


def test_half_a_merge_loses_half(chat, direction, few):
    found = audit(chat, edited(without(direction("advice"), 0.5)), few, n_draws=300)
    assert found.named == ["advice"]
    row = found.table().loc["advice"]
    assert (row["verdict"], row["lost"]) == ("weakened", pytest.approx(0.5, abs=0.1))
    assert row["low"] < row["lost"] < row["high"]


def test_a_change_of_low_rank_in_a_few_layers_is_found_if_it_has_a_target(chat, direction, few):
    found = audit(chat, edited(without(direction("advice"), layers=(3, 4, 5))), few, n_draws=300)
    assert found.named == ["advice"]
    layers = found.by_layer.xs("advice")["lost"]
    assert layers[1] == layers[3] == 0  # states are read before the block
    assert layers[6] > 0.2


def test_a_change_of_low_rank_without_a_target_names_nothing(chat):
    draw = torch.Generator().manual_seed(0)

    def edit(layer, matrix):
        change = torch.randn(192, 4, generator=draw) @ torch.randn(4, matrix.shape[1], generator=draw)
        if layer >= 0:
            matrix += 0.2 * matrix.norm() / change.norm() * change

    found = audit(chat, edited(edit), n_draws=300)
    assert found.named == []
    assert found.table()["lost"].abs().max() > 0  # control: it is another model


def test_a_copy_and_a_direction_that_only_grew(chat, direction, few):
    copy = audit(chat, edited(lambda layer, matrix: None), few, n_draws=300).table()
    assert copy["lost"].abs().max() < 1e-6
    assert set(copy["verdict"]) == {"unchanged"}
    assert set(copy["layers"]) == {""}
    grown = audit(chat, edited(without(direction("advice"), -0.5)), few, n_draws=300)
    assert grown.table().loc["advice", "verdict"] == "strengthened"


def test_lost_is_the_share_of_the_gap_by_hand(chat, direction, few):
    """The noise of few prompts cancels if no prompt is multiplied with itself, another way to take it off."""
    other = edited(without(direction("advice")))
    prompts = pd.concat([few[few["category"] == name].head(8) for name in ("advice", "benign")])
    row = audit(chat, other, prompts, n_prompts=8, layer=5, pos=-1, n_draws=50).table().loc["advice"]
    texts = list(prompts.groupby("category").sample(8, random_state=0)["text"])
    x, y = (
        capture_activations(each, texts, layers=[5], positions=[-1]).values[:, 0, 0].double() for each in (chat, other)
    )

    def product(x, y):
        pairs = x @ y.T
        own = [(part.sum() - part.trace()) / 56 for part in (pairs[:8, :8], pairs[8:, 8:])]
        return float(sum(own) - pairs[:8, 8:].mean() - pairs[8:, :8].mean())

    assert row["lost"] == pytest.approx(1 - product(x, y) / product(x, x), abs=1e-6)
    assert row["cosine"] == pytest.approx(product(x, y) / (product(x, x) * product(y, y)) ** 0.5, abs=1e-6)


def test_models_that_cannot_be_compared_are_one_sentence(chat, train):
    few = train.groupby("category").head(4)
    with pytest.raises(
        ValueError, match=r"^audit: both models must have one shape \(layers, width\); got \(8, 192\) and \(7, 192\)"
    ):
        audit(chat, replace(chat, n_layers=7), few, n_prompts=4)
    half = load_chat_model(dtype="bfloat16", device="cpu")
    with pytest.raises(
        ValueError, match="^audit: both models must have one precision; got torch.float32, not quantized"
    ):
        audit(chat, half, few, n_prompts=4)
    quantized = edited(lambda layer, matrix: None)
    quantized.bridge.original_model.config.quantization_config = SimpleNamespace()
    with pytest.raises(ValueError, match="one precision; .* quantized .SimpleNamespace.*Load both alike"):
        audit(chat, quantized, few, n_prompts=4)
    other = edited(lambda layer, matrix: None)
    other.tokenizer.chat_template = (
        "{{ bos_token }}" + other.tokenizer.chat_template.removeprefix("{{ bos_token }}") + "\n"
    )
    other.tokenizer.chat_template = other.tokenizer.chat_template.replace("| trim", "| trim + ' '")
    with pytest.raises(ValueError, match="^audit: both models must have one tokenizer and template; got other tokens"):
        audit(chat, other, few, n_prompts=4)
    with pytest.raises(ValueError, match="^audit: prompts a side must be 4 to 4; got 16"):
        audit(chat, chat, few)
    with pytest.raises(ValueError, match="^audit: the layer must be one of 1 to 7; got 0"):
        audit(chat, chat, few, n_prompts=4, layer=0)


def test_what_is_cheap_to_check_is_checked_before_any_weights_are_loaded(train, tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(import_module("refusal_utils.methods.audit"), "load_chat_model", never)
    few, other = train.groupby("category").head(4), tmp_path / "other"
    shutil.copytree(BUNDLED_WEIGHTS, other, ignore=shutil.ignore_patterns("*.safetensors"))
    config = (other / "config.json").read_text()
    for options, told in (
        ({"layer": 99}, "the layer must be one of 1 to 7; got 99"),
        ({"layer": 0}, "the layer must be one of 1 to 7; got 0"),
        ({"pos": -40}, "positions must lie in the template's last"),
        ({"n_draws": 0}, "n_draws must be at least 1; got 0"),
        ({"n_prompts": 5}, "prompts a side must be 4 to 4; got 5"),
        ({"prompts": few.drop(columns="category")}, "prompts must have the columns category, text; got none called"),
        ({"prompts": few[few["category"] != "benign"]}, "there must be benign prompts and those of a category"),
        ({"prompts": few[few["category"] == "benign"]}, "there must be benign prompts and .*; got benign"),
    ):
        with pytest.raises(ValueError, match=f"^audit: {told}"):
            audit("bundled", str(other), **{"prompts": few, "n_prompts": 4, **options})
    with pytest.raises(AssertionError, match="weights were loaded"):  # before control: nothing is wrong
        audit("bundled", str(other), few, n_prompts=4, layer=6)
    template = (other / "chat_template.jinja").read_text()
    (other / "chat_template.jinja").write_text(template + "{{ '\n' if add_generation_prompt }}")
    with pytest.raises(ValueError, match="one tokenizer and template; got other tokens at the end of the template"):
        audit("bundled", str(other), few, n_prompts=4)
    (other / "chat_template.jinja").write_text(template)
    (other / "config.json").write_text(config.replace('"num_hidden_layers": 8', '"num_hidden_layers": 7'))
    with pytest.raises(ValueError, match=r"one shape \(layers, width\); got \(8, 192\) and \(7, 192\)"):
        audit("bundled", str(other), few, n_prompts=4)


def test_the_command_prints_the_table(capsys):
    assert main(["audit", "bundled", str(BUNDLED_WEIGHTS), "--n", "4"]) == 0
    out = capsys.readouterr().out
    assert "Directions that changed by themselves: none." in out
    assert out.count("unchanged") == 11
    assert main(["audit", "bundled", "./nothing"]) == 1
    assert "does not exist" in capsys.readouterr().err
