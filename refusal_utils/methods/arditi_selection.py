"""Arditi's selection: the place whose direction, when ablated, takes away most refusal at little cost.

At every layer and template position, the difference in means is ablated everywhere (bypass: the mean refusal score of
prompts that the model refuses; KL: the change on prompts that it answers) and added at its layer (induce: the mean
refusal score of prompts that it answers). Among the candidates that pass the filters, the lowest bypass wins.
"""

from collections.abc import Callable, Mapping, Sequence
from math import inf, nan
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from ..directions import DirectionSet
from ..model.chat_model import ChatModel
from ..steering import first_token_logits
from .candidates import Candidates, Place, effects, find_candidates, induction, suppression
from .method import SearchMethod
from .selection import DEPTH, MAX_KL, Selection, choose, kept_selection

NAME = "arditi_selection"
OPTIONS: dict[str, Any] = {
    "tokens": None,
    "n_train": 128,
    "n_validation": 32,
    "filter_prompts": True,
    "depth": DEPTH,
    "max_kl": MAX_KL,
    "min_induce": 0.0,
    "positions": None,
    "complete": True,
}


def arditi_selection(
    chat: ChatModel,
    prompts: pd.DataFrame,
    *,
    tokens: Sequence[int] | None = None,
    n_train: int = 128,
    n_validation: int = 32,
    filter_prompts: bool = True,
    depth: float = DEPTH,
    max_kl: float = MAX_KL,
    min_induce: float = 0.0,
    positions: Sequence[int] | None = None,
    complete: bool = True,
    cache_dir: str | Path | None = None,
    progress: bool = False,
) -> Selection:
    """The selection among all layers and template `positions`, with scores bypass, induce and kl.

    `tokens`: ids that refusals begin with, by default those of the model's own refusals. Filters: layer 0 (all prompts
    have the same token there), coincident means, values that are not finite, layers from `depth` of the model on, KL
    above `max_kl`, induce below `min_induce`. If nothing survives, `.best` is the candidate that nearly passed. Unless
    `complete`, a candidate that a filter kills is not measured further, which changes neither survivors nor choice.

    Raises `ValueError` as `find_candidates` does, and if no candidate can be used. Source: Arditi et al. 2406.11717,
    section 2.3 and appendix C; unlike there, prompts that the data filter drops are replaced by others.
    """
    options: dict[str, Any] = {"tokens": None if tokens is None else list(tokens)}
    options |= {"n_train": n_train, "n_validation": n_validation, "filter_prompts": filter_prompts}
    options |= {"positions": None if positions is None else list(positions)}
    limits = {"depth": depth, "max_kl": max_kl, "min_induce": min_induce}
    asked = [list(prompts["id"]), list(prompts["text"]), options, limits, *([] if complete else ["filters first"])]

    def select() -> Selection:
        candidates = find_candidates(NAME, chat, prompts, needs_tokens=True, cache_dir=cache_dir, **options)
        scores = candidate_scores(chat, candidates, None if complete else limits, progress=progress)
        return _choose(chat, candidates, scores, **limits)

    return kept_selection(chat, cache_dir, NAME, asked, select)


def candidate_scores(
    chat: ChatModel, candidates: Candidates, limits: Mapping[str, float] | None = None, *, progress: bool = False
) -> pd.DataFrame:
    """Columns layer, pos, bypass, induce and kl, a row per place; NaN where the means coincide.

    With `limits` (depth, max_kl and min_induce), induce is measured within the depth, KL of those that induce, and
    bypass of those that pass both; the others are NaN. If none passes, KL is measured within the depth, and bypass of
    the nearest.
    """
    rows = pd.DataFrame(candidates.places, columns=["layer", "pos"]).assign(bypass=nan, induce=nan, kl=nan)
    alive = pd.Series(candidates.has_difference.tolist(), rows.index)
    before = first_token_logits(chat, candidates.answered_val)

    def fill(name: str, chosen: pd.Series) -> None:
        if chosen.any():
            places = list(rows.loc[chosen, ["layer", "pos"]].itertuples(index=False, name=None))
            rows.loc[chosen, name] = _score(chat, candidates, name, places, before, progress).tolist()

    if limits:
        shallow = alive & (rows["layer"] > 0) & (rows["layer"] < int(limits["depth"] * len(candidates.layers)))
        if shallow.any():
            alive = _passing(rows, shallow, limits, fill)
    for name in ("induce", "kl", "bypass"):
        fill(name, alive & rows[name].isna())
    return rows


def _passing(
    rows: pd.DataFrame, shallow: pd.Series, limits: Mapping[str, float], fill: Callable[[str, pd.Series], None]
) -> pd.Series:
    """Which shallow candidates pass KL and induce, or else which is nearest; measures no more than that takes."""
    fill("induce", shallow)
    passing = shallow & (rows["induce"] >= limits["min_induce"])
    fill("kl", passing)
    passing &= rows["kl"] <= limits["max_kl"]
    if passing.any():
        return passing
    fill("kl", shallow & rows["kl"].isna())
    return pd.Series(rows.index == _miss(rows, limits).where(shallow, inf).idxmin(), rows.index)


def _miss(scores: pd.DataFrame, limits: Mapping[str, float]) -> pd.Series:
    """How far each candidate misses the limit of KL (in shares of it) or induce, the larger; below 0 if neither."""
    over, under = scores["kl"] / limits["max_kl"] - 1, limits["min_induce"] - scores["induce"]
    return pd.concat([over, under], axis=1).max(axis=1)


def _score(
    chat: ChatModel, candidates: Candidates, name: str, places: Sequence[Place], before: Tensor, progress: bool
) -> Tensor:
    """One of the scores of the candidates at these places."""
    change = induction if name == "induce" else suppression
    conditions = [
        change(difference, mean, layer, affine=False)
        for layer, difference, mean in ((layer, *candidates.at(layer, pos)) for layer, pos in places)
    ]
    prompts = candidates.refused_val if name == "bypass" else candidates.answered_val
    how: dict[str, Any] = {"tokens": candidates.tokens, "progress": progress}
    found = effects(NAME, chat, prompts, conditions, unsteered=before if name == "kl" else None, **how)
    return (found.kl if name == "kl" else found.scores).mean(1)


def select_place(
    chat: ChatModel, prompts: pd.DataFrame, *, pos: int | None, cache_dir: str | Path | None
) -> tuple[ChatModel, Selection]:
    """(`chat` at the place that the selection on the train split chooses, at `pos` if that is given; the selection).

    Raises `ValueError` as `arditi_selection` does.
    """
    train, positions = prompts[prompts["split"] == "train"], None if pos is None else (pos,)
    how: dict[str, Any] = {"complete": False, "cache_dir": cache_dir, "progress": True}
    selection = arditi_selection(chat, train, positions=positions, **how)
    return chat.at_place(*selection.best, selection.source), selection


def _choose(
    chat: ChatModel, candidates: Candidates, scores: pd.DataFrame, *, depth: float, max_kl: float, min_induce: float
) -> Selection:
    limits = {f"KL > {max_kl:g}": scores["kl"] > max_kl, f"induce < {min_induce:g}": scores["induce"] < min_induce}
    miss = _miss(scores, {"max_kl": max_kl, "min_induce": min_induce})
    words = [str(chat.tokenizer.decode([token])) for token in candidates.tokens]
    notes = {
        "tokens": list(candidates.tokens),
        "words": words,
        "n_refused": len(candidates.refused_val),
        "n_answered": len(candidates.answered_val),
        "n_train": [len(candidates.refused_train), len(candidates.answered_train)],
        "n_dropped": candidates.n_dropped,
    }
    return choose(
        "Arditi selection", candidates, scores, limits, miss, objective="bypass", lowest=True, depth=depth, notes=notes
    )


def _search(study: Any, **options: Any) -> DirectionSet:
    found = arditi_selection(study.chat, study.draw, cache_dir=study.cache_dir, **options)
    return found.directions(study.provenance(*found.best), **options)


METHOD = SearchMethod(
    name=NAME,
    title="Arditi selection",
    source="Arditi et al., arXiv 2406.11717, section 2.3",
    needs=("forward passes", "first tokens of refusals"),
    options=OPTIONS,
    search=_search,
)
