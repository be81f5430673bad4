"""Generation for many prompts under many conditions in shared batches, greedy or sampled.

Each row (a prompt under a condition) is written to disk as soon as it is finished, so a killed run resumes where it
stopped.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import product
from math import exp
from pathlib import Path

import pandas as pd

from ..checks import require
from ..model.batching import plan_batches, run_batches, token_budget
from ..model.chat_model import ChatModel
from ..model.common_tokens import n_worth_sharing
from ..model.open_hooks import NOT_STORED, require_no_hooks
from ..model.store import RowLog, content_key, one_at_a_time
from .beginning import Beginning
from .conditions import UNSTEERED, Condition
from .decoding import Row, decode, until_stop
from .interventions import require_fit
from .sampling import Sampling

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
    sampling: Sampling | None = None,
    tokens: bool = False,
    first_tokens: Sequence[int] | None = None,
) -> pd.DataFrame:
    """The model's response to every prompt under every condition: one row each, condition by condition.

    Responses are greedy, or drawn with `sampling`. With `paired`, each prompt is answered under one condition: the
    first under the first, and so on. `cache_dir` keeps finished rows. `batch_tokens`: padded tokens per batch.

    Columns: `prompt` (index into `prompts`); `condition` (its name), `direction`, `coefficient` and `gaps`; `response`
    (without special tokens); `n_tokens` (generated ones, the stop token included); `stopped` (by one of the model's own
    stop tokens). With `tokens`, also the response's ids without its stop token. With `sampling`, also `sample` (its
    number) and `probability` (the geometric mean of its tokens' probabilities at temperature 1).
    `first_tokens`: an id per prompt that its response is forced to begin with, not counted in `n_tokens`.

    Raises `ValueError` without conditions, for two that agree in name, direction and coefficient (unless paired), for
    an intervention that does not fit the model, for prompts whose response would leave the context, for an unreadable
    or unwritable cache or one while hooks are open, and as `ChatModel.encode` does.
    """
    _check(chat, conditions, max_new_tokens, cache_dir is not None, len(prompts) if paired else None)
    ids = _encoded(chat, prompts, first_tokens, max_new_tokens)
    rows = _rows(chat, ids, conditions, max_new_tokens, paired, sampling)
    budget = token_budget("generate", batch_tokens, chat.device, BATCH_TOKENS)
    begin = Beginning(chat, ids, n_worth_sharing(chat, ids, len(chat.suffix) + (first_tokens is not None)))
    path = None if cache_dir is None else _log_path(chat, Path(cache_dir))
    with one_at_a_time(cache_dir, path, max_new_tokens, [row.key for row in rows]):
        log = RowLog("generate", path)
        _decode_all(begin, rows, max_new_tokens, budget, log, "generate" if progress else "", sampling)
    frame, ids_of = _frame(chat, rows, log, max_new_tokens, int(first_tokens is not None), sampling is not None)
    return frame.assign(tokens=ids_of) if tokens else frame


def _check(
    chat: ChatModel, conditions: Sequence[Condition], max_new_tokens: int, cached: bool, n_paired: int | None
) -> None:
    name = "generate"
    is_list = isinstance(conditions, Sequence)
    require(is_list, name, "conditions must be a list", f"{conditions!r:.60}", "Put a single one in brackets.")
    is_whole, todo = type(max_new_tokens) is int, "The paper uses 50."
    require(is_whole, name, "max_new_tokens must be a whole number", repr(max_new_tokens), todo)
    require(len(conditions) > 0, name, "there must be at least one condition", "none", "Pass UNSTEERED.")
    require(max_new_tokens >= 1, name, "max_new_tokens must be at least 1", max_new_tokens, "The paper uses 50.")
    must, got = "paired needs one condition per prompt", f"{n_paired} prompts and {len(conditions)} conditions"
    require(n_paired in (None, len(conditions)), name, must, got, "Leave paired out for all combinations.")
    (label, *_), n = Counter((each.name, each.direction, each.coefficient) for each in conditions).most_common(1)[0]
    must = "conditions must differ in name, direction or coefficient, so that their rows can be told apart"
    require(n == 1 or n_paired is not None, name, must, f"{label!r} {n} times", "Rename one.")
    for each in {id(edit): edit for condition in conditions for edit in condition.interventions}.values():
        require_fit(chat, each)
    if cached:
        require_no_hooks(name, chat, NOT_STORED, "Pass interventions as conditions, or leave cache_dir out.")


def _encoded(
    chat: ChatModel, prompts: Sequence[str], first_tokens: Sequence[int] | None, max_new_tokens: int
) -> list[list[int]]:
    ids = chat.encode(prompts)
    if first_tokens is not None:
        must, got = "first_tokens needs one id per prompt", f"{len(first_tokens)} for {len(ids)} prompts"
        require(len(first_tokens) == len(ids), "generate", must, got, "Repeat it if all get the same.")
        ids = [[*row, token] for row, token in zip(ids, first_tokens, strict=True)]
    _check_lengths(chat, ids, max_new_tokens)
    return ids


def _rows(
    chat: ChatModel,
    ids: Sequence[list[int]],
    conditions: Sequence[Condition],
    max_new_tokens: int,
    paired: bool,
    sampling: Sampling | None,
) -> list[Row]:
    pairs = zip(conditions, range(len(ids)), strict=True) if paired else product(conditions, range(len(ids)))
    last = 0 if _has_bridge_hooks(chat) else chat.n_layers - 1  # hooks from outside may act anywhere
    rows = []
    for (each, prompt), sample in product(pairs, range(sampling.n if sampling else 1)):
        drawn = sampling.parts(sample, max_new_tokens) if sampling else []
        key, first_layer = content_key(ids[prompt], each.digest, *drawn), min(each.first_layer(chat.n_layers), last)
        rows.append(Row(prompt, ids[prompt], each, key, first_layer, sample))
    return rows


def _has_bridge_hooks(chat: ChatModel) -> bool:
    return any(point.fwd_hooks for point in chat.hook_points.values())


def _log_path(chat: ChatModel, folder: Path) -> Path:
    """The file of all responses of this model, as it is now and with these stop tokens."""
    return folder / f"responses_{content_key(chat.fingerprint, sorted(chat.stop_tokens))}.rows"


def _check_lengths(chat: ChatModel, ids: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    most = chat.n_context - max_new_tokens + 1  # the last new token is not read
    must = f"prompt and {max_new_tokens} new tokens must fit the context of {chat.n_context}"
    for index, row in enumerate(ids):
        got = f"{len(row)} tokens in prompt {index}"
        require(len(row) <= most, "generate", must, got, "Shorten or drop it, or lower max_new_tokens.")


def _is_complete(stored: list | None, max_new_tokens: int, stops: frozenset[int]) -> bool:
    """Whether a stored row (tokens, stopped) reaches `max_new_tokens` or the end of the response."""
    return stored is not None and (stored[1] or len(stored[0]) >= max_new_tokens or not stops.isdisjoint(stored[0]))


def _decode_all(
    begin: Beginning,
    rows: list[Row],
    max_new_tokens: int,
    budget: int,
    log: RowLog,
    progress: str,
    sampling: Sampling | None,
) -> None:
    """Decode the rows that are not in the log, in batches of similar length; log each as soon as it is finished."""
    stops, values = begin.chat.stop_tokens, log.values
    rows = [*{row.key: row for row in rows if not _is_complete(values.get(row.key), max_new_tokens, stops)}.values()]
    batches = []
    for layer in sorted({row.first_layer for row in rows}):  # below it, the rows of a batch share activations
        members = [index for index, row in enumerate(rows) if row.first_layer == layer]
        plan = plan_batches([rows[index].ids for index in members], budget, max_new_tokens)
        batches += [[members[place] for place in batch] for batch in plan]

    def step(batch: list[int]) -> None:
        own = [rows[index] for index in batch]
        decode(
            begin, own, max_new_tokens, lambda row: log.write(row.key, row.tokens, row.stopped, *row.log_prob), sampling
        )

    def unfinished(batch: list[int]) -> list[int]:
        return [index for index in batch if not rows[index].tokens]

    what = f"responses of up to {max_new_tokens} tokens"
    for _ in run_batches("generate", batches, step, left=unfinished, progress=progress, what=what):
        pass


def _frame(
    chat: ChatModel, rows: list[Row], log: RowLog, max_new_tokens: int, n_forced: int, are_drawn: bool
) -> tuple[pd.DataFrame, list[tuple[int, ...]]]:
    """(the frame of `generate`, the ids of its responses). Stored ones may be longer: greedy responses begin alike."""
    found, ids_of = {}, {}
    for key, forced in {row.key: row.ids[len(row.ids) - n_forced :] for row in rows}.items():
        tokens, _, *log_prob = log.values[key]
        own, stopped = until_stop(tokens[:max_new_tokens], chat.stop_tokens)
        ids_of[key] = (*forced, *own)
        text = str(chat.tokenizer.decode([*forced, *own], skip_special_tokens=True)).strip()
        found[key] = (text, len(own) + stopped, stopped, *map(exp, log_prob))
    fields = ("name", "direction", "coefficient", "gaps")
    told = [(row.prompt, *(getattr(row.condition, each) for each in fields), *found[row.key]) for row in rows]
    columns = ["prompt", "condition", "direction", "coefficient", "gaps", "response", "n_tokens", "stopped"]
    frame = pd.DataFrame(told, columns=columns + ["probability"] * are_drawn)
    frame = frame.assign(sample=[row.sample for row in rows]) if are_drawn else frame
    return frame, [ids_of[row.key] for row in rows]
