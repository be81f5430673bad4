"""Judges by name. A judge is a module of this package with a `NAME` and a function `load()` that returns it.

`load(chat)` gets the chat model whose responses are judged, if it asks for one.
"""

from importlib import import_module
from inspect import signature

from ..checks import require, require_known
from ..model.chat_model import ChatModel
from .judge_files import known_judges
from .judgement import Judge


def named_judge(name: str, chat: ChatModel | None = None) -> Judge:
    """The judge with that name: `"phrases"` (the default), `"wildguard"` (the paper's), `"self"`, or one of your own.

    `"self"` is the model `chat` itself, which must pass a test. Raises `ValueError` for an unknown name, and if the
    judge cannot be loaded.
    """
    judges = known_judges()
    todo = "Use one of these, or add a file to refusal_utils/judging."
    require_known("named_judge", "the judge", name, sorted(judges), todo)
    load = import_module(f".{judges[name]}", __package__).load
    if not signature(load).parameters:
        return load()
    require(
        chat is not None,
        "named_judge",
        f"{name!r} judges with a chat model",
        "none",
        "Name one (--model), or pass study.chat.",
    )
    return load(chat)
