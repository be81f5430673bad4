"""Batched greedy generation, under whatever interventions are open."""

from collections.abc import Sequence
from typing import Any

import torch

from .chat_model import ChatModel

BATCH = {"cpu": 128, "cuda": 256}


def generate(
    chat: ChatModel, prompts: Sequence[str], *, max_new_tokens: int = 50, batch: int | None = None
) -> list[str]:
    """The model's greedy response to each prompt, in the order given, special tokens left out.

    Prompts are sorted by length and batched; stops at the model's own stop tokens; uses the KV cache. Interventions
    that are open around the call apply to the prompt and to every generated token. Raises `ValueError` as `encode`.
    """
    ids = chat.encode(prompts)
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    size = batch or BATCH[chat.device.type]
    responses = [""] * len(ids)
    model: Any = chat.bridge.original_model
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        tokens = chat.pad([ids[index] for index in rows])
        with torch.inference_mode():
            out = model.generate(
                **tokens._asdict(),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=chat.tokenizer.pad_token_id,
            )
        texts = chat.tokenizer.batch_decode(out[:, tokens.input_ids.shape[1] :], skip_special_tokens=True)
        for index, text in zip(rows, texts, strict=True):
            responses[index] = text.strip()
    return responses
