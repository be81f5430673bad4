"""Interventions as a context manager, which leaves the model as it found it."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..model.chat_model import ChatModel
from .interventions import Intervention
from .row_edits import RowEdits


@contextmanager
def intervene(chat: ChatModel, *interventions: Intervention) -> Iterator[ChatModel]:
    """`chat`, with `interventions` applied to every row of whatever it runs while the context is open.

    Raises `ValueError` for an intervention that does not fit the model. One that distinguishes prompt from generated
    tokens also raises it when the model runs on tokens without the chat template's ending.
    """
    with RowEdits(chat, [interventions]).open():
        yield chat
