import torch

from refusal_utils.generation import generate


def test_generate_equals_plain_hugging_face_one_prompt_at_a_time(chat, prompts, plain, plain_ids):
    ours = generate(chat, prompts[:16], max_new_tokens=30, batch=5)
    for prompt, response in zip(prompts[:16], ours, strict=True):
        ids = plain_ids(prompt)
        out = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=30, do_sample=False)
        assert chat.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip() == response
    assert len(set(ours)) > 1


def test_generate_stops_at_the_end_of_the_response_and_leaves_special_tokens_out(chat, prompts):
    for response in generate(chat, prompts[:8], max_new_tokens=64):
        assert "<|" not in response
        assert len(chat.tokenizer(response)["input_ids"]) < 64


def test_generate_of_nothing_is_nothing(chat):
    assert generate(chat, []) == []
