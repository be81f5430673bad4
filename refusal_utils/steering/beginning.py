"""What all prompts begin with (template and system prompt), computed once for each way in which conditions edit it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ..model.chat_model import ChatModel
from ..model.common_tokens import rows_of_cache
from ..model.plain_forward import plain_forward
from .interventions import HeadReplacement, Intervention
from .row_edits import RowEdits
from .shared_rows import SharedRows

Edits = Sequence[Sequence[Intervention]]  # a list of interventions for each row


class Beginning:
    """The first `n` tokens of all prompts of `ids`; with 0, every row is computed whole."""

    def __init__(self, chat: ChatModel, ids: Sequence[list[int]], n: int) -> None:
        self.chat, self.n = chat, n
        self.ids = ids[0][:n] if n else []
        self._layer, self._row_of, self._cache, self._edits = -1, dict[tuple[int, ...], int](), None, list[Any]()

    @contextmanager
    def rows(
        self, ids: Sequence[list[int]], edits: Edits, layer: int, known: Edits = ()
    ) -> Iterator[tuple[SharedRows, RowEdits]]:
        """(the input of a forward pass over the prompts `ids`, their `edits`, one list a row), to be run while open.

        Nothing is edited below `layer`. `known`: the edits of later passes, whose beginnings are computed along.
        """
        shared = SharedRows.if_possible(self.chat, [row[self.n :] for row in ids], layer)
        if self.n:
            self._compute(edits, known or edits, layer)
            members = torch.tensor([self._row_of[_key(row)] for row in edits])
            shared.go_on_from(self.n, self._rows_of_cache(members, layer, len(shared.ids)))
        own = RowEdits(self.chat, edits, self.n)
        with own.open(shared.spread), shared.open():
            yield shared, own

    def _compute(self, edits: Edits, known: Edits, layer: int) -> None:
        """Compute the beginnings under the `known` edits, unless those under all of `edits` are there."""
        if layer == self._layer and {_key(row) for row in edits} <= self._row_of.keys():
            return
        own = {_key(row): row for row in known}
        begin = SharedRows.if_possible(self.chat, [self.ids] * len(own), layer)
        acting = [[edit for edit in row if _acts(edit)] for row in own.values()]
        with RowEdits(self.chat, acting, self.n).open(begin.spread), begin.open():
            out = plain_forward(self.chat.bridge.original_model, begin.ids, begin.mask, use_cache=True)
        self._cache = out.past_key_values
        self._row_of, self._layer = {key: row for row, key in enumerate(own)}, layer
        self._edits = acting  # kept alive, because a key holds their ids

    def _rows_of_cache(self, members: Int[Tensor, " row"], layer: int, n_groups: int) -> Any:
        """The cache with a row per group below `layer`, where beginnings are the same, and a row per row above it."""
        first, cache = members.new_zeros(n_groups), self._cache
        assert cache is not None
        return rows_of_cache(cache, [first if below < layer else members for below in range(len(cache.layers))])


def _acts(edit: Intervention) -> bool:
    """Whether an intervention can change the beginning; heads are replaced at the template's last tokens only."""
    return not isinstance(edit, HeadReplacement) and edit.tokens != "generation"


def _key(row: Sequence[Intervention]) -> tuple[int, ...]:
    return tuple(id(edit) for edit in row if _acts(edit))
