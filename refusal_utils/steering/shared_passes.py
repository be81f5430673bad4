"""The first token of the response to many prompts under many conditions, computed in shared batches.

What rows have in common is computed once: the tokens that all prompts begin with (template and system prompt) once per
condition, and the layers below the first edited one once per prompt. Only the logits of the last token are computed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from ..model.batching import FORWARD_TOKENS, in_order, plan_batches, run_batches, token_budget
from ..model.chat_model import ChatModel
from ..model.common_tokens import n_common, rows_of_cache
from .conditions import Condition
from .decoding import forward
from .row_edits import RowEdits
from .shared_rows import SharedRows

# (prompt_idx [batch], logits [batch, d_vocab], states [batch, layer, d_model]) -> tensors [batch, ...]
Read = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]


def read_first_tokens(
    function: str,
    chat: ChatModel,
    prompts: Sequence[str],
    conditions: Sequence[Condition],
    read: Read,
    *,
    layers: Sequence[int] = (),
    batch_tokens: int | None = None,
    progress: bool = False,
) -> tuple[Shaped[Tensor, "coefficient prompt ..."], ...]:
    """What `read` returns for every prompt under every condition: each tensor [condition, prompt, ...].

    `read(prompt_idx, logits, states)` gets the rows of one batch: the index of each row's prompt [batch], its logits of
    the first response token [batch, d_vocab], and its states of the last prompt token after each of `layers`
    (`resid_post`) [batch, layer, d_model]. It returns tensors [batch, ...]. Conditions that do the same are computed
    once.

    `batch_tokens`: padded tokens per batch. Raises `ValueError` in the name of `function` if a prompt does not fit into
    memory, for an intervention that does not fit the model, and as `ChatModel.encode` does.
    """
    ids, own = chat.encode(prompts), {each.digest: each for each in conditions}
    budget = token_budget(function, batch_tokens, chat.device, FORWARD_TOKENS)
    passes = _Passes(chat, ids, [*own.values()], layers)

    def step(batch: list[int]) -> tuple[Tensor, ...]:
        at = torch.tensor([index % len(ids) for index in batch])
        return tuple(value.cpu() for value in read(at, *passes.run(batch)))

    label, what = function if progress else "", f"prompts under {len(own)} conditions"
    found = in_order(run_batches(function, passes.plan(budget), step, progress=label, what=what))
    order = torch.tensor([[*own].index(each.digest) for each in conditions])
    return tuple(values.unflatten(0, (len(own), len(ids)))[order] for values in found)


class _Passes:
    """Forward passes over rows: row `i` is prompt `i % n_prompts` under condition `i // n_prompts`."""

    def __init__(
        self, chat: ChatModel, ids: Sequence[list[int]], conditions: Sequence[Condition], layers: Sequence[int]
    ) -> None:
        self.chat, self.ids, self.conditions = chat, ids, conditions
        self.hooks = [chat.hook_name("resid_post", layer) for layer in layers]
        self.first = [min(each.first_layer(chat.n_layers), chat.n_layers - 1) for each in conditions]
        self.chunk_of: dict[int, tuple[int, ...]] = {}
        edits = RowEdits(chat, [each.interventions for each in conditions])
        self.n_begin = 0 if edits.needs_marks else n_common(chat, ids)
        self.begun: tuple[tuple[int, ...], Any] = (), None  # conditions, and their cache of the common tokens

    def plan(self, budget: int) -> list[list[int]]:
        """Batches of rows. Their conditions are edited from the same layer on, and few enough to keep their caches."""
        most, n = max(1, budget // max(1, self.n_begin) // 4), len(self.ids)
        batches = []
        for layer in sorted(set(self.first)):
            members = [index for index, first in enumerate(self.first) if first == layer]
            for start in range(0, len(members), most):
                chunk = tuple(members[start : start + most])
                self.chunk_of |= dict.fromkeys(chunk, chunk)
                rows = [condition * n + prompt for condition in chunk for prompt in range(n)]
                planned = plan_batches([self.ids[row % n][self.n_begin :] for row in rows], budget)
                batches += [[rows[index] for index in batch] for batch in planned]
        return batches

    def run(self, rows: Sequence[int]) -> tuple[Float[Tensor, "batch d_vocab"], Float[Tensor, "batch layer d_model"]]:
        """(logits, states) of these rows."""
        n = len(self.ids)
        own = [self.ids[row % n][self.n_begin :] for row in rows]
        chunk = self.chunk_of[rows[0] // n]
        members = [chunk.index(row // n) for row in rows]
        shared = SharedRows.if_possible(self.chat, own, self.first[chunk[0]])
        edits = RowEdits(self.chat, [self.conditions[row // n].interventions for row in rows])
        options: dict[str, Any] = {}
        if self.n_begin:
            options = {"past_key_values": self._cache(chunk, shared, torch.tensor(members)), "use_cache": True}
        mask = torch.cat([shared.mask.new_ones(len(shared.ids), self.n_begin), shared.mask], dim=1)
        with edits.open(shared.spread), shared.open(), self._reading(shared) as states:
            logits = forward(self.chat, shared.ids, mask, **options).logits[:, -1]
        found = [states[name].to(logits.device) for name in self.hooks]
        return logits, torch.stack(found, dim=1) if found else logits.new_empty(len(rows), 0, self.chat.d_model)

    @contextmanager
    def _reading(self, shared: SharedRows) -> Iterator[dict[str, Tensor]]:
        """The last token's states at the hooks, one row per row of the batch, filled by a forward pass while open."""
        kept: dict[str, Tensor] = {}

        def keep(value: Tensor, hook: object, name: str) -> None:
            kept[name] = shared.spread(value[:, -1])

        with self.chat.bridge.hooks(fwd_hooks=[(name, partial(keep, name=name)) for name in self.hooks]):
            yield kept

    def _cache(self, chunk: tuple[int, ...], shared: SharedRows, members: Int[Tensor, " row"]) -> Any:
        """The cache of the common tokens: below the first edited layer a row per prompt, above it a row per row."""
        if self.begun[0] != chunk:
            begin = SharedRows.if_possible(self.chat, [self.ids[0][: self.n_begin]] * len(chunk), self.first[chunk[0]])
            edits = RowEdits(self.chat, [self.conditions[index].interventions for index in chunk])
            with edits.open(begin.spread), begin.open():
                out = forward(self.chat, begin.ids, begin.mask, use_cache=True)
            self.begun = chunk, out.past_key_values
        first, below = members.new_zeros(len(shared.ids)), self.first[chunk[0]]
        cache = self.begun[1]
        return rows_of_cache(cache, [first if layer < below else members for layer in range(len(cache.layers))])
