import re

import pytest
import torch
from transformers import AutoModelForCausalLM

from refusal_utils.heads.attention import Attention, attention_pattern
from refusal_utils.model.chat_model import BUNDLED_WEIGHTS


def test_the_attention_pattern_is_that_of_plain_hugging_face(chat, prompts, plain_ids):
    plain = AutoModelForCausalLM.from_pretrained(BUNDLED_WEIGHTS, dtype=torch.float32, attn_implementation="eager")
    ids = plain_ids(prompts[2])
    found = attention_pattern(chat, prompts[2], 3)
    tokens, pattern = found.tokens, found.weights
    with torch.no_grad():
        expected = plain(ids, output_attentions=True).attentions[3][0]
    torch.testing.assert_close(pattern, expected, atol=1e-4, rtol=1e-4)
    assert tokens == [chat.tokenizer.decode([token]) for token in ids[0]]
    torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:2]))


def test_a_strip_shades_by_weight_and_escapes_the_tokens():
    found = Attention(["<b>", "cat"], torch.tensor([[[0.2, 0.8]]]))
    strip = found.strip(0, -1, "head 5.4")
    assert "&lt;b&gt;" in strip
    assert "<b>head 5.4</b>" in strip
    assert [float(shade) for shade in re.findall(r"rgba\(213,94,0,([\d.]+)\)", strip)] == [0.25, 1]
    assert found.most(0, -1) == ("cat", pytest.approx(0.8))
