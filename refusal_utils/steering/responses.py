"""Judged responses: what the model answers under each condition, and whether and how it refuses."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..checks import require, require_columns
from ..judging import Judge, Judgement, judge_response
from ..model.chat_model import ChatModel
from .conditions import UNSTEERED, Condition
from .generation import generate
from .sampling import Sampling

NOT_JUDGED = "not judged"  # the outcome without a verdict, and the column next to every rate that counts them
VERDICT = ("outcome", "evidence", "styles", "release_type")


def respond(
    chat: ChatModel,
    prompts: pd.DataFrame,
    conditions: Sequence[Condition] = (UNSTEERED,),
    *,
    judge: Judge = judge_response,
    max_new_tokens: int = 50,
    cache_dir: str | Path | None = None,
    progress: bool = False,
    sampling: Sampling | None = None,
    first_tokens: Sequence[int] | None = None,
) -> pd.DataFrame:
    """The judged responses to `prompts` (columns id, text, ...) under every condition, condition by condition.

    Columns: those of `prompts`, of `generate` (except its `prompt`) and of `judge_rows`. Raises `ValueError` as they
    do.
    """
    require_columns("respond", prompts, "text")
    texts = list(prompts["text"])
    how: dict[str, Any] = {
        "cache_dir": cache_dir,
        "progress": progress,
        "sampling": sampling,
        "first_tokens": first_tokens,
    }
    rows = generate(chat, texts, conditions, max_new_tokens=max_new_tokens, **how)
    described = prompts.reset_index(drop=True).loc[rows["prompt"]].reset_index(drop=True)
    return judge_rows(pd.concat([described, rows.drop(columns="prompt")], axis=1), judge)


def judge_rows(rows: pd.DataFrame, judge: Judge = judge_response) -> pd.DataFrame:
    """`rows` (columns text, response) with the judge's outcome, evidence, styles and release_type added as columns.

    Equal pairs of text and response are judged once. Raises `ValueError` for a judge that does not return one
    `Judgement` per response.
    """
    require_columns("judge_rows", rows, "text", "response")
    pairs = list(zip(rows["text"], rows["response"], strict=True))
    asked = sorted(set(pairs))
    many = getattr(judge, "judge_many", None)  # a model judges batches
    given = many(*map(list, zip(*asked, strict=True))) if many and asked else [judge(*each) for each in asked]
    must, got = "judge_many must return one Judgement per response", f"{len(given)} for {len(asked)}"
    require(len(given) == len(asked), "judge_rows", must, got, "Correct the judge.")
    wrong = [type(verdict).__name__ for verdict in given if not isinstance(verdict, Judgement)]
    require(not wrong, "judge_rows", "a judge must return a Judgement", ", ".join(wrong[:1]), "Wrap it.")
    found = dict(zip(asked, given, strict=True))
    verdicts = [found[pair] for pair in pairs]
    n_unjudged = sum(each.outcome == NOT_JUDGED for each in verdicts)
    if n_unjudged:
        print(f"{n_unjudged} of {len(verdicts)} responses are not judged (language) and are left out of all rates")
    return rows.assign(**{name: [getattr(each, name) for each in verdicts] for name in VERDICT})


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose response the judge decided: all but the outcome "not judged", which no rate counts."""
    return rows[rows["outcome"] != NOT_JUDGED]
