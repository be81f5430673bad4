"""The tokens that all prompts begin with (template and system prompt): computed once and cached for every batch."""

from collections.abc import Sequence
from copy import copy
from itertools import takewhile
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import DynamicCache

from .chat_format import TokenBatch
from .chat_model import ChatModel
from .open_hooks import open_hooks
from .plain_forward import plain_forward

_FEWEST_TOKENS = _FEWEST_PROMPTS = 8  # below, a pass of its own costs more than it saves


class CommonTokens:
    """The first `n` tokens of every prompt of `ids`, and a forward pass that goes on from them.

    There are none (`n` is 0) if it is not worth while, if the model cannot keep them, or if anything is hooked to the
    model, because a hook would act on a prompt in two parts. The last `n_own` tokens are each prompt's own.
    """

    def __init__(self, chat: ChatModel, ids: Sequence[list[int]], n_own: int) -> None:
        self.chat = chat
        self.cache: Any = None
        self.n = n_worth_sharing(chat, ids, n_own)
        self.ids = ids[0][: self.n]

    def batch(self, ids: Sequence[list[int]]) -> TokenBatch:
        """What follows the common tokens in each of `ids`, padded on the left. Computes these once."""
        if self.n and self.cache is None:
            begin, mask = self.chat.pad([self.ids])
            self.cache = plain_forward(self.chat.bridge.original_model, begin, mask, use_cache=True).past_key_values
        return self.chat.pad([row[self.n :] for row in ids])

    def forward(self, batch: TokenBatch) -> Any:
        """The model's pass over `batch`, which goes on from the common tokens."""
        if not self.n:
            return self.chat.bridge(batch.input_ids, attention_mask=batch.attention_mask)
        ids, mask = batch
        mask = torch.cat([mask.new_ones(len(ids), self.n), mask], dim=1)
        past = rows_of_cache(self.cache, [torch.zeros(len(ids), dtype=torch.long)] * len(self.cache.layers))
        return plain_forward(self.chat.bridge.original_model, ids, mask, past_key_values=past, use_cache=True)


def n_worth_sharing(chat: ChatModel, ids: Sequence[list[int]], n_own: int) -> int:
    """`n_common`, or 0 if it is not worth a pass of its own, or if anything is hooked to the model."""
    n = n_common(chat, ids, n_own) if len(ids) >= _FEWEST_PROMPTS else 0
    return n if n >= _FEWEST_TOKENS and not open_hooks(chat) else 0


def n_common(chat: ChatModel, ids: Sequence[list[int]], n_own: int = 1) -> int:
    """How many tokens all prompts begin with, leaving each `n_own` of its own; 0 if they cannot be cached apart.

    Padding then stands between these tokens and the others, which only attention over the whole context can ignore.
    """
    model: Any = chat.bridge.original_model
    config = model.config.get_text_config()
    longest, window = max(map(len, ids)), getattr(config, "sliding_window", None)
    is_short = window is None or longest < window
    if not chat.has_cache or any(hasattr(part, "conv_states") for part in DynamicCache(config=config).layers):
        return 0  # a recurrent state has no place for padding
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not is_short or kinds - {"full_attention", "sliding_attention"}:
        return 0
    common = sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, zip(*ids, strict=False)))
    return max(0, min(common, min(map(len, ids)) - n_own))


def rows_of_cache(cache: Any, rows: Sequence[Int[Tensor, " _"]]) -> Any:
    """A copy of `cache` with these rows of each layer; `cache` stays as it is."""
    chosen = copy(cache)
    chosen.layers = [copy(part) for part in cache.layers]
    for part, own in zip(chosen.layers, rows, strict=True):
        part.batch_select_indices(own.cpu())  # the layers may lie on several devices
    return chosen
