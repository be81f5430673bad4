"""Short forms of `intervene` for tests: one vector added at one layer, or a span of directions ablated."""

from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from refusal_utils.model.chat_model import ChatModel
from refusal_utils.steering.contexts import intervene
from refusal_utils.steering.interventions import Ablation, Addition


def add_steering(
    chat: ChatModel, vector: Tensor, layer: int | None = None, **options: Any
) -> AbstractContextManager[ChatModel]:
    layers = (chat.decision_layer if layer is None else layer,)
    return intervene(chat, Addition(vector, layers, **options))


def ablate_direction(chat: ChatModel, directions: Tensor, **options: Any) -> AbstractContextManager[ChatModel]:
    return intervene(chat, Ablation(directions.reshape(-1, directions.shape[-1]), **options))
