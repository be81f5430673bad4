"""Judges by name. A judge is a module of this package with a `NAME` and a function `load()` that returns it.

`load(chat)` gets the chat model whose responses are judged, if it asks for one.
"""

import pkgutil
from importlib import import_module
from inspect import signature
from types import ModuleType

from ..checks import require, require_known
from ..model.chat_model import ChatModel
from .judgement import Judge


def named_judge(name: str, chat: ChatModel | None = None) -> Judge:
    """The judge with that name: `"phrases"` (the default), `"wildguard"` (the paper's), `"self"`, or one of your own.

    `"self"` is the model `chat` itself, which must pass a test. Raises `ValueError` for an unknown name, and if the judge
    cannot be loaded.
    """
    judges = known_judges()
    todo = "Use one of these, or add a file to refusal_utils/judging."
    require_known("named_judge", "the judge", name, sorted(judges), todo)
    load = judges[name].load
    if not signature(load).parameters:
        return load()
    require(chat is not None, "named_judge", f"{name!r} judges with a chat model", "none", "Pass study.chat.")
    return load(chat)


def known_judges() -> dict[str, ModuleType]:
    """The modules of this package that define a judge, by its name."""
    package = import_module(__package__ or "")
    modules = [import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)]
    return {module.NAME: module for module in modules if hasattr(module, "NAME")}
