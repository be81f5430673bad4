"""Logits of given responses: what a model under an intervention would write next, at every token of a text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..model.chat_model import ChatModel
from .decoding import forward
from .interventions import Intervention, first_edited_layer
from .row_edits import RowEdits
from .shared_passes import n_common
from .shared_rows import SharedRows

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
    edits, n_begin = RowEdits(chat, rows), 0
    if all(row is rows[0] for row in rows) and not edits.needs_marks:
        own = min(len(each.ids) - each.n_response for each in given) - 1
        n_begin = min(own, n_common(chat, [each.ids for each in given]))
    n_begin = n_begin if n_begin >= WORTH_SHARING else 0
    shared = SharedRows.if_possible(chat, [each.ids[n_begin:] for each in given], first)
    options: dict[str, Any] = {}
    if n_begin:
        options = {"past_key_values": _begun(chat, given[0].ids[:n_begin], rows, shared), "use_cache": True}
    mask = torch.cat([shared.mask.new_ones(len(shared.ids), n_begin), shared.mask], dim=1)
    with edits.open(shared.spread), shared.open():
        out: Any = forward(chat, shared.ids, mask, n_logits=n_most + 1, **options)
    # Prompts are padded on the left, so responses end together; the last logits predict what would follow them.
    tokens = torch.tensor([[0] * (n_most - each.n_response) + each.ids[-each.n_response :] for each in given])
    lengths = torch.tensor([each.n_response for each in given])
    is_real = torch.arange(n_most) >= n_most - lengths[:, None]
    logits = out.logits[:, -n_most - 1 : -1].float()
    return ResponseLogits(logits, tokens.to(logits.device), is_real.to(logits.device))


def _begun(chat: ChatModel, ids: list[int], rows: Sequence[Sequence[Intervention]], shared: SharedRows) -> Any:
    """The cache of the tokens that all prompts begin with, as many rows in every layer as it will compute."""
    begin = SharedRows.if_possible(chat, [ids], shared.layer)
    with RowEdits(chat, rows[:1]).open(begin.spread), begin.open():
        cache = forward(chat, begin.ids, begin.mask, use_cache=True).past_key_values
    for layer, part in enumerate(cache.layers):
        n = len(shared.ids) if layer < shared.layer else len(rows)
        part.batch_select_indices(torch.zeros(n, dtype=torch.long))
    return cache
