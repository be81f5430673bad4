"""Caches of past tokens that have room for those to come, so that a new token is written and not appended to a copy.

Caches of prompts that were computed apart become one: shorter prompts are padded after the tokens that all begin with.
"""

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

PLAIN_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)


class RoomyLayer(DynamicLayer):
    """The cache of one layer, for at most `n_tokens` tokens, of which the first are those of `parts`.

    `parts`: layers of caches with the same first `n_begin` tokens; zeros are put after these where a part has fewer
    tokens than the longest. What is written beyond `n_tokens` raises a `RuntimeError`. There will be at most
    `n_rows_most` rows. The layer can be continued and reordered; anything else raises a `NotImplementedError`.
    """

    is_croppable = False

    def __init__(self, parts: Sequence[DynamicLayer], n_begin: int, n_tokens: int, n_rows_most: int) -> None:
        super().__init__()
        self._n_rows_most = n_rows_most
        self._room = [
            _joined([getattr(part, name) for part in parts], n_begin, n_tokens) for name in ("keys", "values")
        ]
        self.lazy_initialization(*self._room)
        self.is_sliding = parts[0].is_sliding
        self._show(len(self._room[0]), max(part.get_seq_length() for part in parts))

    def update(
        self,
        key_states: Float[Tensor, "batch head_index pos d_head"],
        value_states: Float[Tensor, "batch head_index pos d_head"],
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Float[Tensor, "batch head_index token d_head"], Float[Tensor, "batch head_index token d_head"]]:
        """(keys, values) with these states after the others."""
        n_new = key_states.shape[-2]
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[: self._n_rows].narrow(-2, self._n_tokens, n_new).copy_(states)
        return self._show(self._n_rows, self._n_tokens + n_new)

    def reorder_cache(self, beam_idx: Int[Tensor, " row"]) -> None:
        """Continue with these rows of the batch. Only those are copied that change their places (see `keep_places`)."""
        beam_idx = beam_idx.cpu()
        n_rows = len(beam_idx)
        to = (beam_idx != torch.arange(n_rows)).nonzero()[:, 0]
        for index, room in enumerate(self._room):
            moved = room[beam_idx[to].to(room.device)]
            if n_rows > len(room) or 4 * n_rows <= len(room):
                n_kept = min(n_rows, self._n_rows)
                self._room[index] = room.new_empty(min(2 * n_rows, self._n_rows_most), *room.shape[1:])
                self._room[index][:n_kept] = room[:n_kept]
            self._room[index][to.to(room.device)] = moved
        self._show(n_rows, self._n_tokens)

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("a cache with room can be continued and reordered, and nothing else")

    crop = batch_select_indices = batch_repeat_interleave = reset = offload = prefetch = _refuse

    def _show(self, n_rows: int, n_tokens: int) -> tuple[Tensor, Tensor]:
        """(keys, values) of the first rows and tokens of the room, which are those in use."""
        self._n_rows, self._n_tokens = n_rows, n_tokens
        keys, values = (room[:n_rows, :, :n_tokens] for room in self._room)
        self.keys, self.values = keys, values
        return keys, values


def keep_places(rows: Int[Tensor, " kept"]) -> Int[Tensor, " kept"]:
    """A permutation to index `rows` with, after which as many as can be stand at the place that they name.

    `rows` are indices in rising order and may repeat.

    >>> rows = torch.tensor([1, 3, 3, 4])
    >>> rows[keep_places(rows)]
    tensor([3, 1, 4, 3])
    """
    n = len(rows)
    is_first = torch.ones(n, dtype=torch.bool, device=rows.device)
    is_first[1:] = rows[1:] != rows[:-1]
    stays = is_first & (rows < n)
    is_free = torch.ones_like(stays)
    is_free[rows[stays]] = False
    places = torch.empty_like(rows)
    places[stays], places[~stays] = rows[stays], is_free.nonzero()[:, 0]
    return places.argsort()


def with_room(caches: Sequence[Any], n_begin: int, n_tokens: int, n_rows_most: int) -> Any:
    """One cache of all rows of `caches`, in their order, for at most `n_tokens` tokens; `caches` are used up.

    Their prompts have the first `n_begin` tokens in common. Only for caches that can have room (`can_have_room`). A
    layer may get more rows later, up to `n_rows_most`.
    """
    joined = copy(caches[0])
    joined.layers = []
    for parts in zip(*map(_layers, caches), strict=True):
        joined.layers.append(RoomyLayer(parts, n_begin, n_tokens, n_rows_most))
        for part in parts:
            part.keys = part.values = None  # frees memory
    return joined


def can_have_room(cache: Any, n_tokens: int) -> bool:
    """Whether `cache` is plain: not in architectures that keep their past in another form or in none at all.

    Nor where a window of attention is shorter than `n_tokens` and would have to slide.
    """
    layers = _layers(cache)
    return bool(layers) and _are_plain(layers, n_tokens) and all(layer.is_initialized for layer in layers)


def will_have_room(model: Any, n_tokens: int) -> bool:
    """`can_have_room` of the caches that `model` is going to make, as far as its configuration tells."""
    return _are_plain(DynamicCache(config=model.config.get_text_config()).layers, n_tokens)


def _are_plain(layers: Sequence[Any], n_tokens: int) -> bool:
    windows = [layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)]
    return all(type(layer) in PLAIN_LAYERS for layer in layers) and all(n_tokens < window for window in windows)


def _layers(cache: Any) -> Sequence[Any]:
    return getattr(cache, "layers", ())


def _joined(
    parts: Sequence[Float[Tensor, "_ head_index _ d_head"]], n_begin: int, n_tokens: int
) -> Float[Tensor, "batch head_index token d_head"]:
    first, n_rows = parts[0], sum(map(len, parts))
    n_most, row = max(part.shape[-2] for part in parts), 0
    joined = first.new_zeros(n_rows, first.shape[1], n_tokens, first.shape[-1])
    for part in parts:
        own = joined[row : row + len(part)]
        own[..., :n_begin, :] = part[..., :n_begin, :]
        own[..., n_begin + n_most - part.shape[-2] : n_most, :] = part[..., n_begin:, :]
        row += len(part)
    return joined
