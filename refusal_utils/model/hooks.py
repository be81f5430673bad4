"""Hooks that are open for a while, such as one forward pass."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .chat_model import ChatModel


@contextmanager
def open_hooks(chat: ChatModel, hooks: Iterable[tuple[str, Callable[..., Any]]]) -> Iterator[None]:
    """While open, call `function(value, hook=point)` at every named hook point; what it returns replaces the value.

    The names are full TransformerLens names (`ChatModel.hook_name`). Hooks that others have set before or inside stay.

    `TransformerBridge.hooks` does the same but looks for all hook points of the model once per hook, which takes most
    of a second for an ablation in 30 layers. Raises `KeyError` for an unknown name, which `TransformerBridge.hooks`
    ignores.
    """
    named = [(name, chat.hook_points[name], function) for name, function in hooks]
    bridge = chat.bridge
    bridge.context_level += 1
    level = bridge.context_level
    try:
        for name, point, function in named:
            bridge.check_hooks_to_add(name)
            point.add_hook(function, level=level)
        yield
    finally:
        for _, point, _ in named:
            point.remove_hooks(dir="fwd", level=level)
        bridge.context_level -= 1
