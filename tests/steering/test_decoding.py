from refusal_utils.steering import decoding
from refusal_utils.steering.decoding import stop_tokens
from refusal_utils.steering.generation import generate


def test_every_stop_token_of_the_model_ends_a_response(chat, prompts, monkeypatch):
    whole = generate(chat, prompts[:4], max_new_tokens=20)
    full_stop = chat.tokenizer(".", add_special_tokens=False)["input_ids"][-1]
    both = [chat.tokenizer.eos_token_id, full_stop]
    monkeypatch.setattr(chat.bridge.original_model.generation_config, "eos_token_id", both)
    assert stop_tokens(chat) == set(both)
    cut = generate(chat, prompts[:4], max_new_tokens=20)
    assert (cut["n_tokens"] <= whole["n_tokens"]).all()
    assert (cut["n_tokens"] < whole["n_tokens"]).any()


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
