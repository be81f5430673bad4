"""Hooks that change what a chat model computes, whoever opened them: one guard for everything that must not see any."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module

from ..checks import require
from .chat_model import ChatModel

NOT_STORED = "no other hook may be open if there is a cache_dir, because results would be stored as the model's own"
# Hooks that read only: those by which the bridge and transformers pass activations on.
_OF_THE_LIBRARIES = ("transformer_lens.model_bridge.", "transformers.")


def open_hooks(chat: ChatModel) -> list[str]:
    """The places at which anything is hooked to the model: bridge or torch hooks, replaced `forward` methods, autocast.

    This suite's own contexts (`intervene`) are among them. Backward hooks are not, since they leave activations alone.
    """
    everywhere = (torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks)
    found = ["every module of torch"] if any(everywhere) else []
    found += ["autocast of torch"] if torch.is_autocast_enabled(chat.device.type) else []
    seen: set[int] = set()
    for root in (chat.bridge, chat.bridge.original_model):
        for name, module in root.named_modules():
            if id(module) not in seen and any(map(_is_foreign, _hooks(module))):
                found.append(name or type(module).__name__)
            seen.add(id(module))
    return found


def require_no_hooks(function: str, chat: ChatModel, must: str, todo: str) -> None:
    """Raise `ValueError` in the name of `function` if anything is hooked to the model (see `open_hooks`)."""
    model: Any = chat.bridge.original_model
    training = "a model in training mode, whose dropout is random"
    require(not model.training, function, "the model must be in evaluation mode", training, "Call its eval().")
    found = open_hooks(chat)
    require(not found, function, must, f"an open hook at {', '.join(found[:3])}", todo)


def _hooks(module: nn.Module) -> Iterator[Any]:
    yield from module._forward_hooks.values()
    yield from module._forward_pre_hooks.values()
    if "forward" in vars(module) and not hasattr(module, "_hf_hook"):  # accelerate moves tensors between devices
        yield module.forward
    owner = next(each for each in type(module).__mro__ if "forward" in vars(each))
    if vars(owner)["forward"].__module__ != owner.__module__:  # the method of a whole class was replaced
        yield vars(owner)["forward"]


def _is_foreign(hook: Any) -> bool:
    return not str(getattr(hook, "__module__", "")).startswith(_OF_THE_LIBRARIES)
