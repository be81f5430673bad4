"""Heads replaced on prompts that made no direction: by their mean on benign prompts, or as on the prompt's twin."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import require
from ..directions.direction_set import DirectionSet
from ..model.batching import in_order, plan_batches, run_batches, token_budget
from ..model.capture import capture_activations
from ..model.chat_model import ChatModel
from ..model.common_tokens import n_worth_sharing
from ..model.hooks import open_hooks
from ..steering.beginning import Beginning
from ..steering.conditions import Condition
from ..steering.decoding import forward
from ..steering.generation import generate
from ..steering.interventions import HeadReplacement
from ..steering.responses import judge_rows
from ..steering.shared_rows import SharedRows
from .overlap import Head
from .refusal_opening import RefusalOpening


@dataclass(frozen=True, eq=False)
class HeadTrial:
    """Prompts with a benign twin each, and what their heads can be replaced by at the template's tokens.

    `prompts` has columns text, category and twin. `along`: each prompt's own direction. `mean_z`: every head's mean
    output over benign prompts (for mean ablation); `twin_z`: its output on the prompt's twin (for patching).
    """

    chat: ChatModel = field(repr=False)
    prompts: pd.DataFrame = field(repr=False)
    along: Float[Tensor, "prompt d_model"] = field(repr=False)
    mean_z: Float[Tensor, "layer pos head_index d_head"] = field(repr=False)
    twin_z: Float[Tensor, "prompt layer pos head_index d_head"] = field(repr=False)
    cache_dir: str | Path | None = None
    max_new_tokens: int = 50

    @classmethod
    def record(
        cls,
        chat: ChatModel,
        prompts: pd.DataFrame,
        benign: Sequence[str],
        directions: DirectionSet,
        cache_dir: str | Path | None = None,
        max_new_tokens: int = 50,
    ) -> "HeadTrial":
        """The trial of `prompts` (columns text, category, twin), with means over the texts `benign`.

        Covers the heads below the decision layer. Raises `ValueError` as `capture_activations` does.
        """
        along = torch.stack([directions[name] for name in prompts["category"]])
        mean_z = head_outputs(chat, benign, cache_dir).float().mean(0)
        twin_z = head_outputs(chat, list(prompts["twin"]), cache_dir).float()
        return cls(chat, prompts.reset_index(drop=True), along, mean_z, twin_z, cache_dir, max_new_tokens)

    @property
    def n_heads(self) -> int:
        """How many heads a layer has."""
        return self.mean_z.shape[2]

    def ablate(self, heads: Sequence[Sequence[Head]]) -> list[Condition]:
        """One condition per prompt: its own `heads` (layer, head_index) replaced by their mean over benign prompts."""
        return self._replace("ablate", heads, self.mean_z.expand_as(self.twin_z))

    def patch(self, heads: Sequence[Sequence[Head]]) -> list[Condition]:
        """One condition per prompt: its `heads` (layer, head_index) replaced by their output on the prompt's twin."""
        return self._replace("patch", heads, self.twin_z)

    def projections(self, conditions: Sequence[Condition]) -> Float[Tensor, " prompt"]:
        """Each prompt's projection on its own direction at the decision state, under the condition of that index."""
        states = states_under(self.chat, list(self.prompts["text"]), conditions)
        return (states * self.along).sum(1)

    def measure(self, conditions: Sequence[Condition], opening: RefusalOpening) -> pd.DataFrame:
        """Projection, refusal logit and refusal of every prompt under its own condition.

        Refusal is 0 or 1, NaN for a response that was not judged. The refusal logit is NaN in categories whose
        refusals rarely begin with the opening tokens.
        """
        texts = list(self.prompts["text"])
        states, logits = forward_under(self.chat, texts, conditions)
        n, cache_dir = self.max_new_tokens, self.cache_dir
        rows = generate(self.chat, texts, conditions, max_new_tokens=n, paired=True, cache_dir=cache_dir)
        judged = judge_rows(rows.assign(text=texts))
        means_something = self.prompts["category"].isin(opening.categories)
        return pd.DataFrame(
            {
                "projection": (states * self.along).sum(1).numpy(),
                "refusal logit": np.where(means_something, opening.logit(logits).numpy(), np.nan),
                "refused": judged["outcome"].map({"refused": 1.0, "answered": 0.0, "broken": 0.0}),
            }
        )

    def _replace(self, kind: str, heads: Sequence[Sequence[Head]], outputs: Tensor) -> list[Condition]:
        positions, conditions = tuple(range(-outputs.shape[2], 0)), []
        for row, (own, z) in enumerate(zip(heads, outputs, strict=True)):
            values = [z[layer, :, head] for layer, head in own]
            edits = (HeadReplacement(tuple(own), positions, torch.stack(values)),) if own else ()
            conditions.append(Condition(f"{kind} {row}", edits))
        return conditions


def head_outputs(
    chat: ChatModel, prompts: Sequence[str], cache_dir: str | Path | None = None
) -> Float[Tensor, "prompt layer pos head_index d_head"]:
    """z of every head below the decision layer at the template's tokens, in the model's dtype.

    Raises `ValueError` as `capture_activations` does.
    """
    model: Any = chat.bridge.original_model
    layers, positions = range(chat.decision_layer), range(-len(chat.suffix), 0)
    found = capture_activations(chat, prompts, layers=layers, positions=positions, hook="z", cache_dir=cache_dir)
    return found.values.unflatten(-1, (model.config.get_text_config().num_attention_heads, -1))


def forward_under(
    chat: ChatModel, prompts: Sequence[str], conditions: Sequence[Condition]
) -> tuple[Float[Tensor, "prompt d_model"], Float[Tensor, "prompt d_vocab"]]:
    """(decision state, logits of the first token) of each prompt under the condition of the same index.

    As float32 on the CPU. Raises `ValueError` unless there is one condition per prompt.
    """
    name = chat.hook_name("resid_pre", chat.decision_layer)

    def run(rows: SharedRows) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []
        hook = (name, lambda value, hook: seen.append(rows.spread(value[:, chat.decision_pos]).float().cpu()))
        with open_hooks(chat, [hook]):
            logits = forward(chat, rows.ids, rows.mask, **rows.past).logits[:, -1]
        return seen[0], logits.float().cpu()

    states, logits = _run_under("forward_under", chat, prompts, conditions, run)
    return states, logits


def states_under(
    chat: ChatModel, prompts: Sequence[str], conditions: Sequence[Condition]
) -> Float[Tensor, "prompt d_model"]:
    """The decision state of `forward_under` alone; nothing above the decision layer is computed. Raises as it does."""
    name = chat.hook_name("resid_pre", chat.decision_layer)

    def run(rows: SharedRows) -> tuple[Tensor]:
        return (rows.read([name], lambda _, value: value[:, chat.decision_pos])[name].float().cpu(),)

    return _run_under("states_under", chat, prompts, conditions, run)[0]


def _run_under(
    function: str,
    chat: ChatModel,
    prompts: Sequence[str],
    conditions: Sequence[Condition],
    run: Callable[[SharedRows], tuple[Tensor, ...]],
) -> tuple[Tensor, ...]:
    """The tensors of `run`, in the order of `prompts`, with each prompt under the condition of the same index."""
    n, todo = len(prompts), "Repeat the condition for every prompt."
    require(n == len(conditions), function, f"conditions must be {n}, one per prompt", len(conditions), todo)
    ids = chat.encode(prompts)
    begin = Beginning(chat, ids, n_worth_sharing(chat, ids, len(chat.suffix)))
    first = min((each.first_layer(chat.n_layers) for each in conditions), default=0)

    def step(rows: list[int]) -> tuple[Tensor, ...]:
        own, edits = [ids[row] for row in rows], [conditions[row].interventions for row in rows]
        with begin.rows(own, edits, min(first, chat.n_layers - 1)) as (shared, _):
            return run(shared)

    return in_order(run_batches(function, plan_batches(ids, token_budget(function, None, chat.device)), step))
