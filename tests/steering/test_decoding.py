from dataclasses import replace

import pandas as pd
import pytest
import torch

from refusal_utils.directions.estimation import normalize
from refusal_utils.model import length_parts
from refusal_utils.model.chat_model import ChatModel
from refusal_utils.model.common_tokens import n_worth_sharing
from refusal_utils.steering import decoding
from refusal_utils.steering.conditions import UNSTEERED, Condition
from refusal_utils.steering.generation import generate
from refusal_utils.steering.interventions import Ablation, Addition
from refusal_utils.steering.sampling import Sampling


def test_every_stop_token_of_the_model_ends_a_response(chat, prompts, monkeypatch):
    whole = generate(chat, prompts[:4], max_new_tokens=20)
    full_stop = chat.tokenizer(".", add_special_tokens=False)["input_ids"][-1]
    both = [chat.tokenizer.eos_token_id, full_stop]
    monkeypatch.setattr(chat.bridge.original_model.generation_config, "eos_token_id", both)
    assert chat.stop_tokens == {*both, chat.tokenizer.convert_tokens_to_ids("<|end|>")}
    cut = generate(chat, prompts[:4], max_new_tokens=20)
    assert (cut["n_tokens"] <= whole["n_tokens"]).all()
    assert (cut["n_tokens"] < whole["n_tokens"]).any()


@pytest.mark.parametrize("known", ["generation config", "tokenizer", "template", "none of them"])
def test_a_stop_token_that_any_source_names_ends_responses_stored_ones_too(chat, prompts, monkeypatch, tmp_path, known):
    """Before control: without it, the response runs on to the limit."""
    answer, eos, config = prompts[:1], chat.tokenizer.eos_token_id, chat.bridge.original_model.generation_config
    usual = generate(chat, answer, max_new_tokens=64)
    monkeypatch.setattr(config, "eos_token_id", None)
    assert "no stop token" not in chat.describe()
    monkeypatch.setattr(ChatModel, "stop_tokens", frozenset())
    assert "no stop token, so every response runs to its limit; " in chat.describe()
    running = generate(chat, answer, max_new_tokens=64, cache_dir=tmp_path)
    assert not running["stopped"].any()
    monkeypatch.undo()
    monkeypatch.setattr(config, "eos_token_id", [eos] if known == "generation config" else 0)
    monkeypatch.setattr(chat.tokenizer, "_special_tokens_map", {**chat.tokenizer._special_tokens_map})
    chat.tokenizer.eos_token = "<|eos|>" if known == "tokenizer" else "<|pad|>"
    ends = replace(chat.markup, end_of_turn=eos if known == "template" else None)
    monkeypatch.setitem(vars(chat), "markup", ends)
    assert (eos in chat.stop_tokens) == (known != "none of them")
    if known != "none of them":
        for cache_dir in (None, tmp_path):
            pd.testing.assert_frame_equal(generate(chat, answer, max_new_tokens=64, cache_dir=cache_dir), usual)


def test_rows_leave_the_batch_when_they_stop(chat, prompts, monkeypatch):
    sizes, original = [], decoding.forward

    def watched(chat, input_ids, attention_mask, **options):
        sizes.append(len(input_ids))
        return original(chat, input_ids, attention_mask, **options)

    monkeypatch.setattr(decoding, "forward", watched)
    rows = generate(chat, prompts[:8], max_new_tokens=64)
    assert rows["stopped"].all()
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == rows["n_tokens"].sum()
    lengths = [len(chat.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in rows["response"]]
    assert rows["n_tokens"].tolist() == [length + 1 for length in lengths]  # and the stop token
    assert not rows["response"].str.contains("<|", regex=False).any()


ALIKE = [
    f"Tell me in one or two short sentences what you know about {what}" for what in ("tea", "old maps and old ships")
]
ALIKE += [f"{text}{more}" for text in ALIKE for more in (".", "!", ", please. " * 5, " and rivers")]
MIXED = ["Hi", "Why?", "How do I boil an egg?", "Name a river. " * 6, "Tell me a short story about the sea. " * 4]


@pytest.mark.parametrize("sampling", [None, Sampling(n=2, seed=1)])
def test_responses_do_not_depend_on_the_parts_in_which_prompts_are_read(chat, prompts, monkeypatch, sampling):
    """Prompts of many lengths, with and without a beginning in common, under conditions that share layers."""
    direction = normalize(torch.ones(1, chat.d_model))[0]
    steered = Condition("steered", (Addition(8 * direction, (3,), "generation"), Ablation(direction[None])))
    late = [Condition(f"{gaps}", (Addition(gaps * direction, (5,)),)) for gaps in (0.5, 12.0)]
    read, original = [], decoding.forward

    def watched(chat, input_ids, attention_mask, **options):
        read.append(input_ids.numel())
        return original(chat, input_ids, attention_mask, **options)

    monkeypatch.setattr(decoding, "forward", watched)

    def responses(asked, part_tokens):
        monkeypatch.setitem(length_parts.PART_TOKENS, "cpu", part_tokens)
        read.clear()
        return generate(chat, asked, [UNSTEERED, *late, steered], max_new_tokens=12, sampling=sampling)

    n_alike = [n_worth_sharing(chat, chat.encode(asked), len(chat.suffix)) for asked in (ALIKE, MIXED)]
    assert n_alike[0] >= 8 > n_alike[1] == 0  # before control: one of them has a beginning of its own
    for asked in ([*MIXED, *prompts[:6]], ALIKE, MIXED[:4]):
        whole, n_whole = responses(asked, 10**6), sum(read)
        parted, n_parted = responses(asked, 0), sum(read)
        columns = ["condition", "prompt", "response", "n_tokens", "stopped"]
        pd.testing.assert_frame_equal(parted[columns], whole[columns])
        assert n_parted < n_whole  # less padding
    assert whole["response"].nunique() > len(MIXED)  # before control: the conditions do something


def test_a_model_without_a_cache_answers_the_same_and_no_row_is_read_twice(chat, monkeypatch):
    monkeypatch.setitem(length_parts.PART_TOKENS, "cpu", 0)
    usual, read, original = generate(chat, MIXED, max_new_tokens=6), [], decoding.forward

    def watched(chat, input_ids, attention_mask, **options):
        read.append(len(input_ids))
        return original(chat, input_ids, attention_mask, **options)

    monkeypatch.setattr(decoding, "forward", watched)
    alone = generate(replace(chat, has_cache=False), MIXED, max_new_tokens=6)
    pd.testing.assert_frame_equal(alone, usual)
    assert read[0] == len(usual)
    assert sum(read) == usual["n_tokens"].sum()
