"""Interventions as context managers: add a steering vector, ablate directions. The model is left as it was found."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..model.chat_model import ChatModel
from .interventions import Ablation, Addition, Intervention
from .row_edits import RowEdits


@contextmanager
def intervene(chat: ChatModel, *interventions: Intervention) -> Iterator[ChatModel]:
    """Apply `interventions` to every row of whatever `chat` runs, while open; afterwards the model is as it was.

    Raises `ValueError` for a vector of another width, a direction whose norm is not 1, a layer out of range, and, where
    prompt and generation are told apart, for tokens without the chat template's ending.
    """
    with RowEdits(chat, [interventions]).open():
        yield chat


@contextmanager
def add_steering(
    chat: ChatModel, steering_vector: Float[Tensor, " d_model"], layer: int | None = None, **options: Any
) -> Iterator[ChatModel]:
    """Add `steering_vector` (coefficient * direction) at `layer` (default: the decision layer) while open.

    `options` are those of `Addition`. Raises `ValueError` as `intervene`.
    """
    layers = (chat.decision_layer if layer is None else layer,)
    with intervene(chat, Addition(steering_vector, layers, **options)):
        yield chat


@contextmanager
def ablate_direction(
    chat: ChatModel, directions: Float[Tensor, "*rank d_model"], **options: Any
) -> Iterator[ChatModel]:
    """Remove one direction [d_model], or the span of several [rank, d_model], from the stream while open.

    `options` are those of `Ablation`. Raises `ValueError` as `intervene`.
    """
    with intervene(chat, Ablation(directions.reshape(-1, directions.shape[-1]), **options)):
        yield chat
