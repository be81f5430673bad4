import copy

import pytest
import torch

from refusal_utils.model.chat_format import PROBES, common_suffix, pad_left, probe_ids, render_chat, thinking_mode


def test_a_rendered_chat_is_that_of_the_tokenizer(chat):
    turn = {"role": "user", "content": "hello"}
    ours, plain = chat.tokenizer, chat.tokenizer.apply_chat_template
    assert render_chat(ours, "hello") == plain([turn], tokenize=False, add_generation_prompt=True)
    messages = [{"role": "system", "content": "Be kind."}, turn]
    assert render_chat(ours, "hello", "Be kind.") == plain(messages, tokenize=False, add_generation_prompt=True)


def test_the_suffix_is_what_follows_every_instruction(chat):
    ids = probe_ids(chat.tokenizer, None)
    after = {chat.tokenizer.decode(row).rpartition(text)[2] for row, text in zip(ids, PROBES, strict=True)}
    assert after == {chat.tokenizer.decode(list(common_suffix(ids)))}
    with pytest.raises(ValueError, match="must end in at least one fixed token; got none"):
        common_suffix([[1, 2], [1, 3]])


TURNS = "{% for m in messages %}<|start|>{{ CONTENT }}<|end|>{% endfor %}<|start|><|assistant|>"
PARTS = TURNS.replace(
    "{{ CONTENT }}", "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}"
)


def with_template(chat, template):
    tokenizer = copy.deepcopy(chat.tokenizer)
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("template", [PARTS, TURNS.replace("CONTENT", "m.content[0]['text']")])
def test_a_template_of_content_parts_gets_the_text_as_a_part(chat, template):
    tokenizer = with_template(chat, template)
    turns = "<|start|>Be kind.<|end|><|start|>Is it late?<|end|><|start|><|assistant|>"
    assert render_chat(tokenizer, "Is it late?", "Be kind.") == turns
    assert render_chat(tokenizer, "Is it late?") == turns.replace("<|start|>Be kind.<|end|>", "")


@pytest.mark.parametrize(
    "content",
    [
        "'the same'",
        "m.content[:3]",
        "m.content | upper",
        "(m.content if m.role == 'user' else '')",
        "m.content | replace('e', '')",
    ],
)
def test_a_template_that_drops_or_changes_a_text_is_rejected(chat, content):
    tokenizer = with_template(chat, TURNS.replace("CONTENT", content))
    with pytest.raises(ValueError, match="render_chat: the template must write every message as it is; got "):
        render_chat(tokenizer, "Is it late?", "Be kind.")


def test_prompts_that_become_the_same_tokens_are_rejected(chat, monkeypatch):
    tokenizer = with_template(chat, TURNS.replace("CONTENT", "m.content"))
    probe_ids(tokenizer, None)
    monkeypatch.setattr(type(tokenizer), "__call__", lambda self, texts, **_: {"input_ids": [[3, 7]] * len(texts)})
    with pytest.raises(ValueError, match="load_chat_model: different prompts must give different tokens"):
        probe_ids(tokenizer, None)


def test_a_template_that_writes_something_random_is_rejected(chat):
    with pytest.raises(ValueError, match="load_chat_model: the template must write the same chat again"):
        probe_ids(with_template(chat, "{{ range(99999) | random }}" + TURNS.replace("CONTENT", "m.content")), None)


def test_a_tokenizer_without_pad_and_stop_tokens_pads_all_the_same(chat):
    tokenizer = copy.deepcopy(chat.tokenizer)
    tokenizer.pad_token = tokenizer.eos_token = None
    batch = pad_left(tokenizer, [[5], [6, 7, 8]], torch.device("cpu"), 100)
    assert batch.input_ids[0, -1] == 5
    assert batch.attention_mask.tolist() == [[0, 0, 1], [1, 1, 1]]


def test_a_pad_token_without_an_embedding_is_not_used(chat):
    tokenizer = copy.deepcopy(chat.tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<late>"})
    eos = tokenizer.eos_token_id
    for n_embeddings, pad in ((tokenizer.pad_token_id + 1, tokenizer.pad_token_id), (tokenizer.pad_token_id, eos)):
        assert pad_left(tokenizer, [[5], [6, 7]], torch.device("cpu"), n_embeddings).input_ids[0, 0] == pad


def test_padding_is_on_the_left_and_masked_whatever_the_tokenizer_prefers(chat):
    tokenizer = copy.deepcopy(chat.tokenizer)
    tokenizer.padding_side = "right"
    batch = pad_left(tokenizer, [[5], [6, 7, 8]], torch.device("cpu"), 100)
    pad = tokenizer.pad_token_id
    assert batch.input_ids.tolist() == [[pad, pad, 5], [6, 7, 8]]
    assert batch.attention_mask.tolist() == [[0, 0, 1], [1, 1, 1]]


@pytest.mark.parametrize(
    ("generation_prompt", "mode"),
    [
        ("{{ '<think>' }}", "thinking cannot be switched off"),
        ("{{ '<think>' if thinking else '<think></think>' }}", "thinking switched off"),
        ("{{ 'Do not leave <think> open.' if enable_thinking }}", "thinking switched off"),
        ("{{ '<think>' if enable_thinking else '' }}", "thinking switched off"),
        ("{{ '[THINK]' }}", "thinking cannot be switched off"),
        ("{{ '<seed:think>' if enable_thinking else '<seed:think></seed:think>' }}", "thinking switched off"),
        ("{{ '<|channel|>analysis<|message|>' }}", "thinking cannot be switched off"),
        ("{{ '<|START_THINKING|>' if x }}", "no thinking switch, although the template has <|START_THINKING|>"),
        ("{# thinking #}", "no thinking switch"),
    ],
)
def test_thinking_mode_is_told_by_what_the_template_writes(chat, generation_prompt, mode):
    tokenizer = copy.deepcopy(chat.tokenizer)
    tokenizer.chat_template += generation_prompt
    assert thinking_mode(tokenizer) == mode
    assert thinking_mode(chat.tokenizer) == "no thinking switch"
