"""The same model under another system prompt, whether or not its template has a place for one."""

from collections.abc import Iterator
from copy import copy

import pandas as pd

from ..checks import require_columns
from .chat_format import PROBES, render_chat
from .chat_model import ChatModel
from .encoding import checked_tokenizer

SYSTEM_ROLE, IN_THE_USERS_TURN = "as a system role", "before the user's text, because the template has no system role"


def has_system_role(chat: ChatModel) -> bool:
    """Whether the model's template accepts a system prompt and writes it."""
    try:
        render_chat(chat.tokenizer, PROBES[0], PROBES[1])
    except ValueError:
        return False
    return True


def told(chat: ChatModel, system_prompt: str) -> tuple[ChatModel, str]:
    """(the same loaded model with this system prompt in place of its own, what to put before each of the user's texts).

    The latter is empty unless the template has no system role. Raises `ValueError` for chat markup in the prompt.
    """
    if not has_system_role(chat):
        return chat, f"{system_prompt}\n\n"
    checked_tokenizer(chat.tokenizer, system_prompt)
    other = copy(chat)
    vars(other).update(system_prompt=system_prompt)
    return other, ""


def by_system_prompt(chat: ChatModel, prompts: pd.DataFrame) -> Iterator[tuple[ChatModel, pd.DataFrame]]:
    """(the model with a system prompt, the rows of `prompts` with that one) for every text in the column system.

    The rows' column text has what the user's turn is to hold.
    """
    require_columns("by_system_prompt", prompts, "system", "text")
    for system_prompt, own in prompts.groupby("system", sort=False):
        other, before = told(chat, str(system_prompt))
        yield other, own.assign(text=before + own["text"])
