import torch
from transformers import AutoModelForCausalLM

from refusal_utils.heads.attention import attention_pattern
from refusal_utils.model.chat_model import BUNDLED_WEIGHTS


def test_the_attention_pattern_is_that_of_plain_hugging_face(chat, prompts, plain_ids):
    plain = AutoModelForCausalLM.from_pretrained(BUNDLED_WEIGHTS, dtype=torch.float32, attn_implementation="eager")
    ids = plain_ids(prompts[2])
    tokens, pattern = attention_pattern(chat, prompts[2], 3)
    with torch.no_grad():
        expected = plain(ids, output_attentions=True).attentions[3][0]
    torch.testing.assert_close(pattern, expected, atol=1e-4, rtol=1e-4)
    assert tokens == [chat.tokenizer.decode([token]) for token in ids[0]]
    torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:2]))
