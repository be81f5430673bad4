"""The tokens that a model's own refusals begin with."""

import pandas as pd

from ..model.chat_model import ChatModel

COVERED = 0.8  # of the refusals begin with one of the tokens


def first_ids(chat: ChatModel, responses: pd.Series) -> pd.Series:
    """The id of the first token of each response, with the same index; missing for an empty one."""
    options = {"add_special_tokens": False, "split_special_tokens": True}  # a response is text
    encoded = [chat.tokenizer(text, **options)["input_ids"] for text in responses]
    return pd.Series([ids[0] if ids else None for ids in encoded], responses.index, dtype="Int64")


def opening_ids(refused: pd.Series, answered: pd.Series) -> list[int]:
    """The first ids that open more of the refusals than of the answers, until they open 80 % of the refusals.

    Both sides are first ids, as `first_ids` returns them. The most frequent come first.
    """
    shares, others = (side.value_counts(normalize=True, sort=False) for side in (refused, answered))
    typical = shares[shares > others.reindex(shares.index, fill_value=0.0)]
    typical = typical.sort_values(ascending=False, kind="stable")
    return typical.index[typical.cumsum().shift(fill_value=0.0) < COVERED].tolist()
