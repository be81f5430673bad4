"""Rows of a batch that are identical so far, computed once below the first layer that is edited.

A sweep sends one prompt through a model under many conditions. Below the first edited layer all its rows have the same
activations, for as long as they generate the same tokens. Only from that layer on does each row need its own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ..model.chat_model import ChatModel


class SharedRows:
    """The rows of a batch in groups: all rows of a group have the same tokens so far.

    `ids` and `mask` are the input of the next forward pass, one row per group. `group_idx` is the group of every row.
    """

    def __init__(self, chat: ChatModel, prompts: Sequence[Sequence[int]], layer: int) -> None:
        self.chat, self.layer = chat, layer
        groups = {prompt: index for index, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        self.ids, self.mask = chat.pad([list(prompt) for prompt in groups])
        self.group_idx: Int[Tensor, " row"] = torch.tensor(
            [groups[tuple(prompt)] for prompt in prompts], device=chat.device
        )

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
        """Continue with the rows `kept`, which generated `tokens`; groups split where their rows differ."""
        base = int(tokens.max()) + 1
        pairs, self.group_idx = torch.unique(self.group_idx[kept] * base + tokens, return_inverse=True)
        parents = pairs // base
        for layer, part in enumerate(cache.layers):
            rows, n_before = (parents, len(self.ids)) if layer < self.layer else (kept, part.keys.shape[0])
            if len(rows) != n_before or not rows.equal(torch.arange(n_before, device=rows.device)):
                part.batch_select_indices(rows.cpu())  # the layers may lie on several devices
        self.ids = (pairs % base)[:, None]
        self.mask = torch.cat([self.mask[parents], self.mask.new_ones(len(parents), 1)], dim=1)

    def _spread_all(self, block: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return self.spread(args), {name: self.spread(value) for name, value in kwargs.items()}

    def _spread_options(self, block: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """The mask and positions come from the model, one row per group; the stream comes from the block before."""
        stream = {name: value for name, value in kwargs.items() if name == "hidden_states"}
        return args, {name: self.spread(value) for name, value in kwargs.items()} | stream
