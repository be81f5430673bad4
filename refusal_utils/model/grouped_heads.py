"""Attention in which several heads share keys and values, without a copy of these for every head.

Most newer models have fewer key-value heads than heads. TransformerLens repeats keys and values for all heads
(`repeat_kv` of transformers) and multiplies head by head; for one new token of many texts on a CPU, this takes a fifth
of the time of a response. Here the heads that share a key-value head are multiplied at once, which is the same sum.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.models.llama import modeling_llama

PRODUCTS = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)


@contextmanager
def grouped_heads() -> Iterator[None]:
    """While open, keys and values are not repeated. Without effect on attention that does not call Llama's function."""
    own: Any = modeling_llama
    if own.repeat_kv is GroupedStates:  # open already, perhaps in another thread
        yield
        return
    before, own.repeat_kv = own.repeat_kv, GroupedStates
    try:
        yield
    finally:
        own.repeat_kv = before


class GroupedStates:
    """What `repeat_kv(states, n_heads)` stands for: every key-value head's states, for each of `n_heads` heads.

    A product with it, and with it transposed, is taken in groups. Anything else is done to the repeated states.
    """

    def __init__(
        self, states: Float[Tensor, "batch kv_head_index token d_head"], n_heads: int, *, is_transposed: bool = False
    ) -> None:
        self.states, self.n_heads, self.is_transposed = states, n_heads, is_transposed

    @property
    def shape(self) -> torch.Size:
        """That of the repeated states."""
        n_batch, n_own, *last = self.states.shape
        return torch.Size([n_batch, n_own * self.n_heads, *(last[::-1] if self.is_transposed else last)])

    def transpose(self, one: int, other: int) -> Any:
        """The repeated states with two axes exchanged."""
        if {one % 4, other % 4} == {2, 3}:
            return GroupedStates(self.states, self.n_heads, is_transposed=not self.is_transposed)
        return self.repeated().transpose(one, other)

    def repeated(self) -> Float[Tensor, "batch head_index row other_row"]:
        """The states of every head, copied."""
        own = self.states.mT if self.is_transposed else self.states
        return own.repeat_interleave(self.n_heads, dim=1)

    def product(
        self, left: Float[Tensor, "batch head_index pos row"]
    ) -> Float[Tensor, "batch head_index pos other_row"]:
        """`left` @ the repeated states."""
        own = self.states.mT if self.is_transposed else self.states
        n_batch, n_all, n_pos, n_row = left.shape
        grouped = left.reshape(n_batch, n_all // self.n_heads, self.n_heads * n_pos, n_row)
        return (grouped @ own).reshape(n_batch, n_all, n_pos, -1)

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """PyTorch's protocol for arguments that are not tensors."""
        if function in PRODUCTS and isinstance(args[0], Tensor) and args[0].ndim == 4:
            return args[1].product(args[0])
        return function(*[each.repeated() if isinstance(each, cls) else each for each in args], **(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        """Anything else that tensors have."""
        return getattr(self.repeated(), name)
