"""Decoding of one batch whose rows are edited differently, with the KV cache; rows leave when they stop."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.chat_model import ChatModel
from ..model.grouped_heads import grouped_heads
from ..model.length_parts import PART_TOKENS, length_parts
from ..model.plain_forward import plain_forward
from ..model.roomy_cache import can_have_room, keep_places, will_have_room, with_room
from .beginning import Beginning
from .conditions import Condition
from .row_edits import RowEdits
from .sampling import Sampling, TokenChoice
from .shared_rows import SharedRows


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
    chat = begin.chat
    stops = torch.tensor(sorted(chat.stop_tokens), dtype=torch.long, device=chat.device)
    choice = TokenChoice(sampling, [row.key for row in rows], max_new_tokens)
    new = torch.empty(len(rows), 0, dtype=torch.long, device=chat.device)
    shared, logits, cache = _prefill(begin, rows, max_new_tokens)
    edits = RowEdits(chat, [row.condition.interventions for row in rows], begin.n)
    with edits.open(shared.spread), shared.open():
        for n_new in range(1, max_new_tokens + 1):
            tokens = choice.choose(logits).to(chat.device)
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
            stay = stay[keep_places(stay)]
            shared.advance(tokens[stay], stay, cache)
            if ended.any():
                edits.keep(stay)
                choice.keep(stay)
                new, rows = new[stay], [rows[index] for index in stay.tolist()]
            logits, cache = _pass(shared)


def _prefill(
    begin: Beginning, rows: Sequence[Row], max_new_tokens: int
) -> tuple[SharedRows, Float[Tensor, "row d_vocab"], Any]:
    """(the rows after their prompts, the logits of the next token, the cache), computed in parts of similar length."""
    chat, ids, edits = begin.chat, [row.ids for row in rows], [row.condition.interventions for row in rows]
    layer, n_tokens = min(row.first_layer for row in rows), max(map(len, ids)) + max_new_tokens - 1

    def run(part: slice) -> tuple[SharedRows, Tensor, Any]:
        with begin.rows(ids[part], edits[part], layer, edits) as (shared, _):
            return shared, *_pass(shared)

    has_room = chat.has_cache and will_have_room(chat.bridge.original_model, n_tokens)
    first, *others = _parts(begin, ids, layer / chat.n_layers) if has_room else [slice(None)]
    found = [run(first)]
    if not chat.has_cache or not can_have_room(found[0][-1], n_tokens):
        return run(slice(None)) if others else found[0]
    parts, logits, caches = zip(*found, *map(run, others), strict=True)
    cache = with_room(caches, begin.n, n_tokens, len(rows)) if max_new_tokens > 1 else None
    return SharedRows.joined(parts, begin.n, cache), torch.cat(logits), cache


def _parts(begin: Beginning, ids: Sequence[list[int]], shared: float) -> list[slice]:
    """Parts of similar length. The rows of one prompt share this part of their layers."""
    n_rows = Counter(map(tuple, ids))
    weights = [1 - shared + shared / n_rows[tuple(row)] for row in ids]
    cost = PART_TOKENS.get(begin.chat.device.type, PART_TOKENS["cpu"])
    return length_parts([len(row) - begin.n for row in ids], weights, cost)


def _pass(shared: SharedRows) -> tuple[Float[Tensor, "row d_vocab"], Any]:
    """(the logits of the next token, the cache) of the next forward pass, under the edits that are open."""
    out = forward(shared.chat, shared.ids, shared.mask, **shared.past)
    return out.logits[:, -1], getattr(out, "past_key_values", None)


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
