"""What each token of a forward pass is: its position in the chat, and whether it belongs to the prompt."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..checks import require
from ..model.chat_model import ChatModel
from .interventions import Tokens


class TokenMarks:
    """The tokens of the current forward pass, read from the model's own arguments while `watch` is open.

    The first `n_begin` tokens of the prompts may be computed in a pass of their own (`Beginning`).
    """

    def __init__(self, suffix: tuple[int, ...], n_begin: int = 0) -> None:
        self.suffix, self.n_begin = suffix, n_begin
        self.n_past = 0
        self._ids: Int[Tensor, "batch pos"]
        self._positions: Int[Tensor, "batch pos"]

    @contextmanager
    def watch(self, chat: ChatModel, spread: Callable[[Any], Any]) -> Iterator[None]:
        """Read every forward pass while open. `spread` turns its arguments into one row per row of the batch."""
        model: Any = chat.bridge.original_model
        handle = model.register_forward_pre_hook(partial(self._read, spread), with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def chosen(self, tokens: Tokens, every: int) -> Bool[Tensor, "batch pos"]:
        """Which tokens an edit with these options applies to. Raises `ValueError` as `prompt_ends` does."""
        due = self._positions % every == 0
        if tokens == "all":
            return due
        return due & (self._generated() == (tokens == "generation"))

    def prompt_ends(self) -> Int[Tensor, " batch"]:
        """The index of each row's last prompt token. Raises `ValueError` for tokens without the template's ending."""
        n_suffix = len(self.suffix)
        ends = (self._ids.unfold(1, n_suffix, 1) == torch.tensor(self.suffix, device=self._ids.device)).all(-1)
        require(
            bool(ends.any(-1).all()),
            "intervene",
            "prompt and generated tokens can only be told apart by the chat template's last tokens",
            f"a row without {list(self.suffix)}",
            "Encode prompts with chat.encode, or use tokens='all'.",
        )
        indices = torch.arange(ends.shape[1], device=self._ids.device)
        return (ends * indices).amax(-1) + n_suffix - 1

    def _read(self, spread: Callable[[Any], Any], module: object, args: tuple, kwargs: dict) -> None:
        self._ids = spread(args[0] if args else kwargs["input_ids"])
        past, mask = kwargs.get("past_key_values"), spread(kwargs.get("attention_mask"))
        self.n_past = past.get_seq_length() if past is not None else 0
        n_new = self._ids.shape[1]
        if mask is None:
            mask = torch.ones(len(self._ids), self.n_past + n_new, device=self._ids.device)
        self._positions = mask.long().cumsum(-1)[:, -n_new:] - 1

    def _generated(self) -> Bool[Tensor, "batch pos"]:
        if self.n_past != self.n_begin:
            return torch.full_like(self._ids, self.n_past > self.n_begin, dtype=torch.bool)
        indices = torch.arange(self._ids.shape[1], device=self._ids.device)
        return indices > self.prompt_ends()[:, None]
