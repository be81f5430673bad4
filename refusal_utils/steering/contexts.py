"""Interventions as context managers, which leave the model as they found it."""

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
    """`chat`, with `interventions` applied to every row of whatever it runs while the context is open.

    Raises `ValueError` for an intervention that does not fit the model, and, if an intervention distinguishes prompt
    from generated tokens, for tokens without the chat template's ending.
    """
    with RowEdits(chat, [interventions]).open():
        yield chat


@contextmanager
def add_steering(
    chat: ChatModel, steering_vector: Float[Tensor, " d_model"], layer: int | None = None, **options: Any
) -> Iterator[ChatModel]:
    """`chat`, with `steering_vector` (coefficient * direction) added at `layer` (default: the decision layer).

    `options` are those of `Addition`. Raises `ValueError` as `intervene` does.
    """
    layers = (chat.decision_layer if layer is None else layer,)
    with intervene(chat, Addition(steering_vector, layers, **options)):
        yield chat


@contextmanager
def ablate_direction(
    chat: ChatModel, directions: Float[Tensor, "*rank d_model"], **options: Any
) -> Iterator[ChatModel]:
    """`chat`, with one direction [d_model] or the span of several [rank, d_model] removed from the residual stream.

    `options` are those of `Ablation`. Raises `ValueError` as `intervene` does.
    """
    with intervene(chat, Ablation(directions.reshape(-1, directions.shape[-1]), **options)):
        yield chat
