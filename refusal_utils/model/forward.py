"""A forward pass that reads activations at hooks and stops after the deepest of them."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from jaxtyping import Float
from torch import Tensor

from .chat_format import TokenBatch
from .chat_model import ChatModel
from .hooks import open_hooks


def read_hooks(
    chat: ChatModel,
    run: TokenBatch | Callable[[], object],
    names: Iterable[str],
    keep: Callable[[str, Float[Tensor, "batch ..."]], Float[Tensor, "batch ..."]],
) -> dict[str, Float[Tensor, "batch ..."]]:
    """`keep(name, activation)` for each hook of `names`; nothing above the deepest hook is computed.

    The names are full TransformerLens names (`ChatModel.hook_name`). The caller decides about gradients: `run_batches`
    turns them off. `run`: a batch, or a function that runs the model in another way.
    """
    wanted, kept = dict.fromkeys(names), {}

    def read(value: Tensor, hook: object, name: str) -> None:
        kept[name] = keep(name, value)
        if len(kept) == len(wanted):
            raise _Deepest

    # A hook knows itself by its canonical name, not the alias that was asked for, so the alias is bound here.
    hooks = [(name, partial(read, name=name)) for name in wanted]
    with open_hooks(chat, hooks), suppress(_Deepest):
        if callable(run):
            run()
        else:
            chat.bridge(run.input_ids, attention_mask=run.attention_mask)
    return kept


class _Deepest(Exception):
    """Raised inside the forward pass after the last hook has been read, to leave it."""
