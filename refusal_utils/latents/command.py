"""What `python -m refusal_utils train-sae` does: chats of a model, autoencoders of its layers, and their card."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..checks import require_columns
from ..model.chat_model import ChatModel
from ..steering.given_responses import GivenResponse
from .card import write_card
from .quality import Quality, sae_quality
from .token_states import own_chats
from .training import train_sae


def train_and_measure(
    chat: ChatModel,
    prompts: pd.DataFrame,
    layers: Sequence[int] | None,
    folder: str | Path,
    *,
    chats: Sequence[GivenResponse] | None = None,
    held_out: Sequence[str] | None = None,
    cache_dir: str | Path | None = None,
    max_new_tokens: int = 50,
    **options: Any,
) -> Quality:
    """The quality of autoencoders trained on prompts of the train split, measured on those of the eval split.

    `chats`: what to train on instead; `held_out`: prompts to measure on instead.
    `layers`: blocks whose outputs are read; None: the one before the decision layer. `options` are those of
    `train_sae`. Folders and a card are written to `folder`. Raises `ValueError` as `train_sae` does.
    """
    require_columns("train_and_measure", prompts, "split", "text")
    started, clock = time.time(), time.process_time()
    layers = [max(0, chat.decision_layer - 1)] if layers is None else layers
    how: dict[str, Any] = {"max_new_tokens": max_new_tokens, "cache_dir": cache_dir}
    splits = {split: list(prompts.loc[prompts["split"] == split, "text"]) for split in ("train", "eval")}
    train = own_chats(chat, splits["train"], **how) if chats is None else chats
    saes = train_sae(chat, train, layers, folder, cache_dir=cache_dir, **options)
    minutes, spent = (time.time() - started) / 60, (time.process_time() - clock) / 60
    measured = own_chats(chat, splits["eval"] if held_out is None else held_out, **how)
    quality = sae_quality(chat, saes, measured, cache_dir=cache_dir)
    spent_on = f"{len(saes)} layers, responses to train prompts included"
    recipe = {
        "trained on": f"all {sum(len(each.ids) for each in train)} tokens of {len(train)} prompts;"
        f" {sum(each.n_response > 0 for each in train)} of them with the model's own greedy response",
        "options": ", ".join(f"{name} {value}" for name, value in options.items()) or "those by default",
        "time": f"{minutes:.1f} minutes ({spent:.1f} of processor time) for {spent_on}",
    }
    write_card(folder, chat, quality, len(measured), recipe)
    return quality
