"""Rows of a batch that are identical so far, computed once below the first layer that is edited.

A sweep sends one prompt through a model under many conditions. Below the first edited layer all its rows have the same
activations, for as long as they generate the same tokens. Only from that layer on does each row need its own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import partial
from itertools import accumulate
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.chat_model import ChatModel
from ..model.forward import read_hooks
from ..model.plain_forward import MOST_DIFFERENT, plain_forward
from ..model.roomy_cache import keep_places

_CAN_SHARE: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()  # by bridge


class SharedRows:
    """The rows of a batch in groups: all rows of a group have the same tokens so far.

    Without `share` every row is a group of its own. `ids`, `mask` and `past` are the input of the next forward pass,
    one row per group. `group_idx` is the group of every row.
    """

    def __init__(self, chat: ChatModel, prompts: Sequence[Sequence[int]], layer: int, share: bool = True) -> None:
        self.chat, self.layer = chat, layer
        rows = [(0 if share else row, *prompt) for row, prompt in enumerate(prompts)]
        groups = {row: index for index, row in enumerate(dict.fromkeys(rows))}
        self.ids, self.mask = chat.pad([list(prompt) for _, *prompt in groups])
        self.group_idx: Int[Tensor, " row"] = torch.tensor([groups[row] for row in rows], device=chat.device)
        self.past: dict[str, Any] = {"use_cache": True} if chat.has_cache else {}

    @classmethod
    def if_possible(cls, chat: ChatModel, prompts: Sequence[Sequence[int]], layer: int) -> "SharedRows":
        """Rows that share what they can: nothing in architectures whose blocks need more than their own rows."""
        if chat.bridge not in _CAN_SHARE:
            _CAN_SHARE[chat.bridge] = _can_share(chat)
        return cls(chat, prompts, layer, _CAN_SHARE[chat.bridge])

    @classmethod
    def joined(cls, parts: Sequence["SharedRows"], n_begin: int, cache: Any) -> "SharedRows":
        """The rows of `parts`, whose prompts have been read and stand in `cache` (see `model.roomy_cache`)."""
        whole, n_most = copy(parts[0]), max(part.mask.shape[1] for part in parts)
        starts = [0, *accumulate(len(part.ids) for part in parts[:-1])]
        whole.ids = torch.cat([part.ids[:, -1:] for part in parts])
        whole.mask = torch.cat([_padded(part.mask, n_begin, n_most) for part in parts])
        whole.group_idx = torch.cat([start + part.group_idx for start, part in zip(starts, parts, strict=True)])
        whole.past = {"past_key_values": cache, "use_cache": True}
        return whole

    def go_on_from(self, n_past: int, cache: Any) -> None:
        """Put the `n_past` tokens of `cache` before every row. It has a row per group below `layer`, else per row."""
        self.mask = torch.cat([self.mask.new_ones(len(self.mask), n_past), self.mask], dim=1)
        self.past = {"past_key_values": cache, "use_cache": True}

    def read(
        self, names: Sequence[str], keep: Callable[[str, Float[Tensor, "row ..."]], Float[Tensor, "row ..."]]
    ) -> dict[str, Float[Tensor, "row ..."]]:
        """`read_hooks` of the next forward pass: what is kept of each hook, one row per row of the batch."""
        run = partial(plain_forward, self.chat.bridge.original_model, self.ids, self.mask, **self.past)
        return read_hooks(self.chat, run, names, lambda name, value: self.spread(keep(name, value)))

    @contextmanager
    def open(self) -> Iterator[None]:
        """While open, layers below `layer` compute one row per group, and the others one row per row of the batch."""
        first, *others = [self.chat.bridge.blocks[layer] for layer in range(self.layer, self.chat.n_layers)]
        handles = [first.register_forward_pre_hook(self._spread_all, with_kwargs=True)]
        handles += [block.register_forward_pre_hook(self._spread_options, with_kwargs=True) for block in others]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def spread(self, value: Any) -> Any:
        """`value` with every tensor [group, ...] in it as [row, ...]; tensors without a batch axis are unchanged."""
        if isinstance(value, tuple | list):
            return type(value)(self.spread(part) for part in value)
        if isinstance(value, Tensor) and value.ndim > 1 and len(value) == len(self.ids):
            return value[self.group_idx.to(value.device)]
        return value

    def advance(self, tokens: Int[Tensor, " kept"], kept: Int[Tensor, " kept"], cache: Any) -> None:
        """Continue with the rows `kept`, which generated `tokens`; groups split if rows differ. `cache`: all before."""
        base, n_rows = int(tokens.max()) + 1, len(self.group_idx)
        pairs, group_idx = torch.unique(self.group_idx[kept] * base + tokens, return_inverse=True)
        order = keep_places(pairs // base)
        pairs, self.group_idx = pairs[order], order.argsort()[group_idx]
        parents = pairs // base
        if self.chat.has_cache:
            self.past["past_key_values"] = cache
            for layer, part in enumerate(cache.layers):
                rows, n_before = (parents, len(self.ids)) if layer < self.layer else (kept, n_rows)
                if len(rows) != n_before or not rows.equal(torch.arange(n_before, device=rows.device)):
                    part.reorder_cache(rows.cpu())  # the layers may lie on several devices
        ids = (pairs % base)[:, None]
        self.ids = ids if self.chat.has_cache else torch.cat([self.ids[parents], ids], dim=1)
        self.mask = torch.cat([self.mask[parents], self.mask.new_ones(len(parents), 1)], dim=1)

    def _spread_all(self, block: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return self.spread(args), {name: self.spread(value) for name, value in kwargs.items()}

    def _spread_options(self, block: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """The mask and positions come from the model, one row per group; the stream comes from the block before."""
        stream = {name: value for name, value in kwargs.items() if name == "hidden_states"}
        options = {name: self.spread(value) for name, value in kwargs.items()}
        return (*args[:1], *self.spread(args[1:])), options | stream


def _padded(mask: Int[Tensor, "row token"], n_begin: int, n_tokens: int) -> Int[Tensor, "row _"]:
    """`mask` with `n_tokens` tokens, of which those after the first `n_begin` are padding where it has fewer."""
    padding = mask.new_zeros(len(mask), n_tokens - mask.shape[1])
    return torch.cat([mask[:, :n_begin], padding, mask[:, n_begin:]], dim=1)


def _can_share(chat: ChatModel) -> bool:
    """Whether rows that share a layer get the same logits as alone: tried with as many groups as there are heads.

    BLOOM and MPT pass their blocks biases per head, which are mistaken for rows then.
    """
    model: Any = chat.bridge.original_model
    n_groups = getattr(model.config.get_text_config(), "num_attention_heads", 2)
    prompts = chat.encode([f"Is it {number}?" for number in range(n_groups)])
    prompts.append(prompts[0])
    shared = SharedRows(chat, prompts, 1)
    with torch.inference_mode():
        apart = plain_forward(model, *chat.pad(prompts)).logits[:, -1]
        try:
            with shared.open():
                together = plain_forward(model, shared.ids, shared.mask).logits[:, -1]
        except (RuntimeError, TypeError, ValueError, IndexError):
            return False
    fits = together.shape == apart.shape
    return fits and float((together - apart).abs().max()) <= MOST_DIFFERENT * max(1.0, float(apart.abs().max()))
