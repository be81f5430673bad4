"""Greedy generation of many prompts under many conditions, different conditions in one batch, resumable from disk.

Every row (prompt x condition) is written as soon as it is finished, under a key made of model, prompt and condition,
so a killed run goes on where it was, and a row that was generated once is never generated again.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from ..checks import require
from ..model.batching import in_order, plan_batches, run_batches, token_budget
from ..model.chat_model import ChatModel
from ..model.store import RowLog, content_key
from .conditions import UNSTEERED, Condition
from .row_edits import RowEdits
from .shared_rows import SharedRows

COLUMNS = ("prompt", "condition", "direction", "coefficient", "gaps", "response", "n_tokens", "stopped")
BATCH_TOKENS = {"cpu": 24_576, "cuda": 65_536}


def generate(
    chat: ChatModel,
    prompts: Sequence[str],
    conditions: Sequence[Condition] = (UNSTEERED,),
    *,
    max_new_tokens: int = 50,
    cache_dir: str | Path | None = None,
    batch_tokens: int | None = None,
    progress: bool = False,
    paired: bool = False,
) -> pd.DataFrame:
    """The model's greedy response to every prompt under every condition: one row each, condition by condition.

    `paired`: the first prompt under the first condition, the second under the second, and so on.

    Columns: `prompt` (index into `prompts`); `condition` (its name), `direction`, `coefficient` and `gaps` of the
    condition; `response` (without special tokens), `n_tokens` (generated ones, the stop token included), `stopped` (by
    one of the model's own stop tokens, rather than by `max_new_tokens`).
    Rows ride in batches of at most `batch_tokens` padded tokens whatever their condition, use the KV cache, and leave
    the batch when they stop; when memory runs out the batch is halved, and that is said. With a `cache_dir` finished
    rows are read from there and written to it at once. Raises `ValueError` for no conditions, two that
    agree in name, direction and coefficient (unless paired), an
    intervention that does not fit the model, a cache that cannot be read or written, and as `ChatModel.encode`.
    """
    _check(chat, conditions, max_new_tokens, cache_dir, len(prompts) if paired else None)
    ids = chat.encode(prompts)
    store = _Finished(cache_dir, chat)
    pairs = zip(conditions, range(len(ids)), strict=True) if paired else product(conditions, range(len(ids)))
    keys = [(_key(ids[prompt], condition), prompt, condition) for condition, prompt in pairs]
    last = 0 if has_open_hooks(chat) else chat.n_layers - 1  # hooks from outside may act anywhere
    todo = {
        key: _Row(key, ids[prompt], condition, min(condition.first_layer(chat.n_layers), last))
        for key, prompt, condition in keys
        if not store.has(key, max_new_tokens)
    }
    try:
        with tqdm(total=len(todo), desc="generate", unit="row", disable=not progress) as bar:

            def finish(row: _Row) -> None:
                store.write(row.key, list(row.tokens), row.stopped)
                bar.update()

            _decode_all(chat, list(todo.values()), max_new_tokens, batch_tokens, finish)
    finally:
        store.close()
    cut = {key: store.read(key, max_new_tokens) for key in {key for key, _, _ in keys}}
    response = {
        key: str(chat.tokenizer.decode(tokens, skip_special_tokens=True)).strip() for key, (tokens, _) in cut.items()
    }
    rows = [
        (prompt, each.name, each.direction, each.coefficient, each.gaps, response[key], len(cut[key][0]), cut[key][1])
        for key, prompt, each in keys
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def generate_texts(chat: ChatModel, prompts: Sequence[str], max_new_tokens: int = 50) -> list[str]:
    """The greedy responses in the order of `prompts`, under whatever interventions are open around the call."""
    return list(generate(chat, prompts, max_new_tokens=max_new_tokens)["response"])


def first_token_logits(
    chat: ChatModel, prompts: Sequence[str], condition: Condition = UNSTEERED, *, batch_tokens: int | None = None
) -> Float[Tensor, "prompt d_vocab"]:
    """The logits of the first token of the response to each prompt under `condition`, as float32 on the CPU."""
    ids = chat.encode(prompts)
    batches = plan_batches(ids, token_budget("first_token_logits", batch_tokens, chat.device, BATCH_TOKENS))

    def step(rows: list[int]) -> tuple[Tensor]:
        with RowEdits(chat, [condition.interventions]).open():
            out = _forward(chat, **chat.pad([ids[row] for row in rows])._asdict())
        return (out.logits[:, -1].float().cpu(),)

    return in_order(run_batches("first_token_logits", batches, step))[0]


@dataclass(eq=False)
class _Row:
    """A prompt under a condition, the first layer that computes it by itself, and what has been generated."""

    key: str
    ids: list[int]
    condition: Condition
    first_layer: int
    tokens: tuple[int, ...] = ()
    stopped: bool = False


def _decode_all(
    chat: ChatModel, rows: list[_Row], max_new_tokens: int, batch_tokens: int | None, finish: Callable[[_Row], None]
) -> None:
    """Generate all rows in batches by length; those of a batch that did not fit into memory in halves of it.

    Rows that are edited from the same layer on ride together: below it they share what they can.
    """
    budget = token_budget("generate", batch_tokens, chat.device, BATCH_TOKENS)
    batches = []
    for layer in sorted({row.first_layer for row in rows}):
        members = [index for index, row in enumerate(rows) if row.first_layer == layer]
        plan = plan_batches([rows[index].ids for index in members], budget, max_new_tokens)
        batches += [[members[place] for place in batch] for batch in plan]

    def step(batch: list[int]) -> None:
        _decode(chat, [rows[index] for index in batch], max_new_tokens, finish)

    def unfinished(batch: list[int]) -> list[int]:
        return [index for index in batch if not rows[index].tokens]

    for _ in run_batches("generate", batches, step, left=unfinished):
        pass  # rows are kept as they finish


def _decode(chat: ChatModel, rows: list[_Row], max_new_tokens: int, finish: Callable[[_Row], None]) -> None:
    """Generate one batch. A row is finished, and leaves the batch, as soon as it stops.

    Not a generator: the interventions are in force for the whole batch, and must be undone whatever goes wrong.
    """
    stops = torch.tensor(sorted(stop_tokens(chat)), device=chat.device)
    edits = RowEdits(chat, [row.condition.interventions for row in rows])
    shared = SharedRows(chat, [row.ids for row in rows], min(row.first_layer for row in rows))
    new = torch.empty(len(rows), 0, dtype=torch.long, device=chat.device)
    cache = None
    with edits.open(shared.spread), shared.open():
        for n_new in range(1, max_new_tokens + 1):
            out = _forward(chat, shared.ids, shared.mask, past_key_values=cache, use_cache=True)
            tokens, cache = out.logits[:, -1].argmax(-1).to(chat.device), out.past_key_values
            new = torch.cat([new, tokens[:, None]], dim=1)
            stopped = torch.isin(tokens, stops)
            ended = stopped | (n_new == max_new_tokens)
            for index in ended.nonzero()[:, 0].tolist():
                rows[index].tokens, rows[index].stopped = tuple(new[index].tolist()), bool(stopped[index])
                finish(rows[index])
            if ended.all():
                return
            stay = (~ended).nonzero()[:, 0]
            shared.advance(tokens[stay], stay, cache)
            if ended.any():
                edits.keep(stay)
                new, rows = new[stay], [rows[index] for index in stay.tolist()]


def _forward(chat: ChatModel, input_ids: Tensor, attention_mask: Tensor, **options: Any) -> Any:
    """One forward pass with the position of every token, and logits for the last one only where the model can."""
    model: Any = chat.bridge.original_model
    known = inspect.signature(model.forward).parameters
    if "position_ids" in known:
        positions = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
        options["position_ids"] = positions[:, -input_ids.shape[1] :]
    if "logits_to_keep" in known:
        options["logits_to_keep"] = 1
    return model(input_ids=input_ids, attention_mask=attention_mask, **options)


def stop_tokens(chat: ChatModel) -> set[int]:
    """The ids of the tokens that end a response: those of the model's generation config, else the tokenizer's."""
    model: Any = chat.bridge.original_model
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    configured = chat.tokenizer.eos_token_id if configured is None else configured
    return set(configured) if isinstance(configured, list | tuple) else {configured}


def _check(
    chat: ChatModel,
    conditions: Sequence[Condition],
    max_new_tokens: int,
    cache_dir: str | Path | None,
    n_paired: int | None,
) -> None:
    require(len(conditions) > 0, "generate", "there must be at least one condition", "none", "Pass UNSTEERED.")
    known = Counter((each.name, each.direction, each.coefficient) for each in conditions)
    twice = [name for (name, *_), n in known.items() if n > 1]
    require(
        not twice or n_paired is not None,
        "generate",
        "conditions must differ in name, direction or coefficient, so that their rows can be told apart",
        f"{', '.join(twice)} more than once",
        "Rename one.",
    )
    require(
        n_paired in (None, len(conditions)),
        "generate",
        "paired needs one condition per prompt",
        f"{n_paired} prompts and {len(conditions)} conditions",
        "Leave paired out for all combinations.",
    )
    require(max_new_tokens >= 1, "generate", "max_new_tokens must be at least 1", max_new_tokens, "The paper uses 50.")
    for condition in conditions:
        RowEdits(chat, [condition.interventions])
    if cache_dir is not None and has_open_hooks(chat):
        raise ValueError(
            "generate: with a cache_dir no other hook may be open, the rows would be stored under a wrong key; got some. "
            "Pass the interventions as conditions."
        )


def has_open_hooks(chat: ChatModel) -> bool:
    """Whether anything is hooked to the model's activations from outside."""
    return any(point.fwd_hooks for point in chat.bridge.hook_dict.values())


def _key(ids: Sequence[int], condition: Condition) -> str:
    return content_key(list(ids), condition.digest)


class _Finished(RowLog):
    """Finished rows, (tokens, stopped) by key: in memory and, if a folder is given, in one file per model."""

    def __init__(self, root: str | Path | None, chat: ChatModel) -> None:
        super().__init__("generate", None if root is None else Path(root) / f"{chat.fingerprint}.jsonl")

    def has(self, key: str, max_new_tokens: int) -> bool:
        """Whether the row is known up to `max_new_tokens`."""
        tokens, stopped = self.values.get(key, ((), False))
        return stopped or len(tokens) >= max_new_tokens

    def read(self, key: str, max_new_tokens: int) -> tuple[list[int], bool]:
        """(tokens, stopped) of a row, cut at `max_new_tokens`: greedy responses of any length begin the same."""
        tokens, stopped = self.values[key]
        return tokens[:max_new_tokens], stopped and len(tokens) <= max_new_tokens
