"""A forward pass that reads activations at hooks and stops after the deepest of them."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from jaxtyping import Float
from torch import Tensor

from .chat_format import TokenBatch
from .chat_model import ChatModel
from .common_tokens import CommonTokens


def read_hooks(
    chat: ChatModel,
    batch: TokenBatch,
    names: Iterable[str],
    keep: Callable[[str, Float[Tensor, "batch ..."]], Float[Tensor, "batch ..."]],
    common: CommonTokens | None = None,
) -> dict[str, Float[Tensor, "batch ..."]]:
    """`keep(name, activation)` for each hook of `names`; nothing above the deepest hook is computed.

    The names are full TransformerLens names (`ChatModel.hook_name`). The caller decides about gradients: `run_batches`
    turns them off. `batch` may be of `common`: what follows the tokens that all prompts begin with.
    """
    if common is not None:
        common.prepare()
    wanted, kept = dict.fromkeys(names), {}

    def read(value: Tensor, hook: object, name: str) -> None:
        kept[name] = keep(name, value)
        if len(kept) == len(wanted):
            raise _Deepest

    # A hook knows itself by its canonical name, not the alias that was asked for, so the alias is bound here.
    hooks = [(name, partial(read, name=name)) for name in wanted]
    with chat.bridge.hooks(fwd_hooks=hooks), suppress(_Deepest):
        if common is None:
            chat.bridge(batch.input_ids, attention_mask=batch.attention_mask)
        else:
            common.forward(batch)
    return kept


class _Deepest(Exception):
    """Raised inside the forward pass after the last hook has been read, to leave it."""
