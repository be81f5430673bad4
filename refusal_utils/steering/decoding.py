"""Decoding of one batch whose rows are edited differently, with the KV cache; rows leave when they stop."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ..model.chat_model import ChatModel
from ..model.grouped_heads import grouped_heads
from ..model.plain_forward import plain_forward
from .beginning import Beginning
from .conditions import Condition
from .sampling import Sampling, TokenChoice


@dataclass(eq=False)
class Row:
    """A prompt (its index and tokens) under a condition, and the number of the sample.

    `tokens`, `stopped` and, if they are drawn, the mean `log_prob` of the tokens are set when the response is finished.
    `key` identifies the response on disk. Below `first_layer` the row may share activations with the same prompt under
    other conditions.
    """

    prompt: int
    ids: list[int]
    condition: Condition
    key: str
    first_layer: int
    sample: int = 0
    tokens: tuple[int, ...] = ()
    stopped: bool = False
    log_prob: tuple[float, ...] = ()


def decode(
    begin: Beginning,
    rows: Sequence[Row],
    max_new_tokens: int,
    finish: Callable[[Row], None],
    sampling: Sampling | None = None,
) -> None:
    """Decode one batch, and call `finish` with each row as soon as it stops.

    `begin`: what all prompts begin with. Models without a cache (`ChatModel.has_cache`) compute the whole text again
    for every token.

    This is not a generator: the interventions apply to the whole batch and must be undone even after an error.
    """
    chat, layer = begin.chat, min(row.first_layer for row in rows)
    stops = torch.tensor(sorted(chat.stop_tokens), dtype=torch.long, device=chat.device)
    choice = TokenChoice(sampling, [row.key for row in rows], max_new_tokens)
    new = torch.empty(len(rows), 0, dtype=torch.long, device=chat.device)
    ids, interventions = [row.ids for row in rows], [row.condition.interventions for row in rows]
    with begin.rows(ids, interventions, layer) as (shared, edits):
        for n_new in range(1, max_new_tokens + 1):
            out = forward(chat, shared.ids, shared.mask, **shared.past)
            tokens = choice.choose(out.logits[:, -1]).to(chat.device)
            new = torch.cat([new, tokens[:, None]], dim=1)
            stopped = torch.isin(tokens, stops)
            ended = stopped | (n_new == max_new_tokens)
            for index in ended.nonzero()[:, 0].tolist():
                rows[index].tokens, rows[index].stopped = tuple(new[index].tolist()), bool(stopped[index])
                rows[index].log_prob = choice.mean_log_prob(index)
                finish(rows[index])
            if ended.all():
                return
            stay = (~ended).nonzero()[:, 0]
            shared.advance(tokens[stay], stay, out)
            if ended.any():
                edits.keep(stay)
                choice.keep(stay)
                new, rows = new[stay], [rows[index] for index in stay.tolist()]


def forward(
    chat: ChatModel, input_ids: Int[Tensor, "batch pos"], attention_mask: Int[Tensor, "batch token"], **options: Any
) -> Any:
    """`plain_forward` of the chat's Hugging Face model, with whatever is hooked to it."""
    with grouped_heads():
        return plain_forward(chat.bridge.original_model, input_ids, attention_mask, **options)


def until_stop(tokens: Sequence[int], stops: Collection[int]) -> tuple[Sequence[int], bool]:
    """(`tokens` up to the first stop token and without it, whether there is one)."""
    end = next((at for at, token in enumerate(tokens) if token in stops), None)
    return (tokens, False) if end is None else (tokens[:end], True)
