"""The first token of the response to many prompts under many conditions, computed in shared batches.

What rows have in common is computed once: the tokens that all prompts begin with (template and system prompt) once per
condition, and the layers below the first edited one once per prompt. Only the logits of the last token are computed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ..model.batching import FORWARD_TOKENS, in_order, plan_batches, run_batches, token_budget
from ..model.chat_model import ChatModel
from ..model.common_tokens import n_common, n_worth_sharing
from ..model.hooks import open_hooks
from .beginning import Beginning
from .conditions import UNSTEERED, Condition
from .decoding import forward
from .generation import BATCH_TOKENS
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


def first_token_logits(
    chat: ChatModel,
    prompts: Sequence[str],
    condition: Condition = UNSTEERED,
    *,
    batch_tokens: int | None = None,
    gradients: bool = False,
) -> Float[Tensor, "prompt d_vocab"]:
    """The logits of the first token of the response to each prompt under `condition`, as float32 on the CPU.

    With `gradients` they can be differentiated, for instance with respect to the vector of an `Addition`.
    """
    ids, edits, layer = chat.encode(prompts), condition.interventions, condition.first_layer(chat.n_layers)
    begin = Beginning(chat, ids, n_worth_sharing(chat, ids, len(chat.suffix)))
    batches = plan_batches(ids, token_budget("first_token_logits", batch_tokens, chat.device, BATCH_TOKENS))

    def step(rows: list[int]) -> tuple[Tensor]:
        own = [ids[row] for row in rows]
        with begin.rows(own, [edits] * len(rows), min(layer, chat.n_layers - 1)) as (shared, _):
            out = forward(chat, shared.ids, shared.mask, **shared.past)
        return (out.logits[:, -1].float().cpu(),)

    return in_order(run_batches("first_token_logits", batches, step, gradients=gradients))[0]


class _Passes:
    """Forward passes over rows: row `i` is prompt `i % n_prompts` under condition `i // n_prompts`."""

    def __init__(
        self, chat: ChatModel, ids: Sequence[list[int]], conditions: Sequence[Condition], layers: Sequence[int]
    ) -> None:
        self.chat, self.ids, self.conditions = chat, ids, conditions
        self.hooks = [chat.hook_name("resid_post", layer) for layer in layers]
        self.first = [min(each.first_layer(chat.n_layers), chat.n_layers - 1) for each in conditions]
        self.chunk_of: dict[int, tuple[int, ...]] = {}
        self.begin = Beginning(chat, ids, n_common(chat, ids, len(chat.suffix)))

    def plan(self, budget: int) -> list[list[int]]:
        """Batches of rows. Their conditions are edited from the same layer on, and few enough to keep their caches."""
        most, n = max(1, budget // max(1, self.begin.n) // 4), len(self.ids)
        batches = []
        for layer in sorted(set(self.first)):
            members = [index for index, first in enumerate(self.first) if first == layer]
            for start in range(0, len(members), most):
                chunk = tuple(members[start : start + most])
                self.chunk_of |= dict.fromkeys(chunk, chunk)
                rows = [condition * n + prompt for condition in chunk for prompt in range(n)]
                planned = plan_batches([self.ids[row % n][self.begin.n :] for row in rows], budget)
                batches += [[rows[index] for index in batch] for batch in planned]
        return batches

    def run(self, rows: Sequence[int]) -> tuple[Float[Tensor, "batch d_vocab"], Float[Tensor, "batch layer d_model"]]:
        """(logits, states) of these rows."""
        n, chunk = len(self.ids), self.chunk_of[rows[0] // len(self.ids)]
        edits, known = (
            [self.conditions[at].interventions for at in which] for which in ([row // n for row in rows], chunk)
        )
        ids = [self.ids[row % n] for row in rows]
        with self.begin.rows(ids, edits, self.first[chunk[0]], known) as (shared, _), self._reading(shared) as states:
            logits = forward(self.chat, shared.ids, shared.mask, **shared.past).logits[:, -1]
        found = [states[name].to(logits.device) for name in self.hooks]
        return logits, torch.stack(found, dim=1) if found else logits.new_empty(len(rows), 0, self.chat.d_model)

    @contextmanager
    def _reading(self, shared: SharedRows) -> Iterator[dict[str, Tensor]]:
        """The last token's states at the hooks, one row per row of the batch, filled by a forward pass while open."""
        kept: dict[str, Tensor] = {}

        def keep(value: Tensor, hook: object, name: str) -> None:
            kept[name] = shared.spread(value[:, -1])

        with open_hooks(self.chat, [(name, partial(keep, name=name)) for name in self.hooks]):
            yield kept
