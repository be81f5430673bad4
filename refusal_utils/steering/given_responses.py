"""Logits of given responses: what a model under an intervention would write next, at every token of a text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..model.chat_model import ChatModel
from ..model.common_tokens import n_common
from .beginning import Beginning
from .decoding import forward
from .interventions import Intervention, first_edited_layer

WORTH_SHARING = 16  # tokens that all prompts begin with: fewer are not worth a pass of their own


@dataclass(frozen=True)
class GivenResponse:
    """A prompt with a response to it, as one list of token ids; the last `n_response` ids are the response."""

    ids: list[int]
    n_response: int


@dataclass(frozen=True, eq=False)
class ResponseLogits:
    """The logits that predict each token of some responses, the tokens, and which of the padded ones are real."""

    logits: Float[Tensor, "batch token d_vocab"]
    tokens: Int[Tensor, "batch token"]
    is_real: Bool[Tensor, "batch token"]

    def mean(self, values: Float[Tensor, "batch token"]) -> Float[Tensor, " batch"]:
        """The mean of `values` over the real tokens of each response."""
        return values.where(self.is_real, 0.0).sum(-1) / self.is_real.sum(-1)


def response_logits(
    chat: ChatModel, given: Sequence[GivenResponse], rows: Sequence[Sequence[Intervention]]
) -> ResponseLogits:
    """The logits of `given` responses, each under its own list of interventions, in one forward pass.

    What all prompts begin with is computed once if `rows` is one list repeated. Gradients flow to the vectors of the
    interventions unless the caller turns them off. Raises `ValueError` for an intervention that does not fit the model.
    """
    n_layers, n_most = chat.n_layers, max(each.n_response for each in given)
    first = min((first_edited_layer(edit, n_layers) for row in rows for edit in row), default=n_layers - 1)
    ids = [each.ids for each in given]
    n = min(n_common(chat, ids), min(len(each.ids) - each.n_response for each in given) - len(chat.suffix))
    is_worth = n >= WORTH_SHARING and all(row is rows[0] for row in rows)
    with Beginning(chat, ids, n if is_worth else 0).rows(ids, rows, first) as (shared, _):
        out: Any = forward(chat, shared.ids, shared.mask, n_logits=n_most + 1, **shared.past)
    # Prompts are padded on the left, so responses end together; the last logits predict what would follow them.
    tokens = torch.tensor([[0] * (n_most - each.n_response) + each.ids[-each.n_response :] for each in given])
    lengths = torch.tensor([each.n_response for each in given])
    is_real = torch.arange(n_most) >= n_most - lengths[:, None]
    logits = out.logits[:, -n_most - 1 : -1].float()
    return ResponseLogits(logits, tokens.to(logits.device), is_real.to(logits.device))
