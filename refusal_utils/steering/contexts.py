"""Interventions as context managers, which leave the model as they found it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..model.chat_model import ChatModel
from .interventions import Ablation, Addition, Intervention
from .row_edits import RowEdits


@contextmanager
def intervene(chat: ChatModel, *interventions: Intervention) -> Iterator[ChatModel]:
    """`chat`, with `interventions` applied to every row of whatever it runs while the context is open.

    Raises `ValueError` for an intervention that does not fit the model. One that distinguishes prompt from generated
    tokens also raises it when the model runs on tokens without the chat template's ending.
    """
    with RowEdits(chat, [interventions]).open():
        yield chat


def add_steering(
    chat: ChatModel, steering_vector: Float[Tensor, " d_model"], layer: int | None = None, **options: Any
) -> AbstractContextManager[ChatModel]:
    """`intervene` with `steering_vector` (coefficient * direction) added at `layer` (default: the decision layer)."""
    layers = (chat.decision_layer if layer is None else layer,)
    return intervene(chat, Addition(steering_vector, layers, **options))


def ablate_direction(
    chat: ChatModel, directions: Float[Tensor, "*rank d_model"], **options: Any
) -> AbstractContextManager[ChatModel]:
    """`intervene` with one direction [d_model] or the span of several [rank, d_model] removed (see `Ablation`)."""
    return intervene(chat, Ablation(directions.reshape(-1, directions.shape[-1]), **options))
