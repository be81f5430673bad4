"""COSMIC: the place whose direction moves states of refused prompts to those of answered ones, and back.

No tokens are needed: an intervention is scored by cosines between mean states after it and mean states without it, over
the layers at which refused and answered prompts differ most.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import require
from ..directions import DirectionSet
from ..model.capture import capture_activations
from ..model.chat_model import ChatModel
from ..steering import first_token_logits
from .candidates import Candidates, effects, find_candidates, induction, suppression
from .method import SearchMethod
from .selection import DEPTH, MAX_KL, Selection, choose, kept_selection

NAME = "cosmic"
SHARE = 0.1  # of the layers evaluate
OPTIONS: dict[str, Any] = {
    "affine": False,
    "targets": "concatenated",
    "strength": 1.0,
    "late_only": False,
    "n_train": 180,
    "n_validation": 32,
    "filter_prompts": False,
    "depth": DEPTH,
    "max_kl": MAX_KL,
    "positions": None,
}
States = Float[Tensor, "*coefficient prompt layer d_model"]


def cosmic(
    chat: ChatModel,
    prompts: pd.DataFrame,
    *,
    affine: bool = False,
    targets: str = "concatenated",
    strength: float = 1.0,
    late_only: bool = False,
    n_train: int = 180,
    n_validation: int = 32,
    filter_prompts: bool = False,
    depth: float = DEPTH,
    max_kl: float = MAX_KL,
    positions: Sequence[int] | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = False,
) -> Selection:
    """The selection among all layers and template `positions`, with scores comply, refuse, total (their sum) and kl.

    `comply`: the cosine of the refused prompts' mean state with refusal suppressed and the answered prompts' mean;
    `refuse`: that of the answered prompts with refusal induced and the refused ones. `targets`: "concatenated" over the
    `evaluation_layers` (the paper) or "averaged" (its code). Refusal is suppressed by ablation and induced by adding
    the raw difference; with `affine`, both are affine edits at the candidate's layer (ACE), with `strength` times the
    difference. Filters: those of `arditi_selection` without induce, and one for position -1 (`too_deep_at_the_end`).
    Raises `ValueError` as `find_candidates` does, for other `targets`, and without a usable candidate. Source: Siu et
    al. 2506.00085, section 3; they read the last layer after the final norm, and validate on 100 a side.
    """
    _require_target(targets)
    options: dict[str, Any] = {"n_train": n_train, "n_validation": n_validation, "filter_prompts": filter_prompts}
    options |= {"positions": None if positions is None else list(positions)}
    how: dict[str, Any] = {"affine": affine, "targets": targets, "strength": strength}
    asked = [[*prompts["id"]], [*prompts["text"]], options, {**how, "late_only": late_only}, depth, max_kl]

    def select() -> Selection:
        candidates = find_candidates(NAME, chat, prompts, needs_tokens=False, cache_dir=cache_dir, **options)
        layers = evaluation_layers(chat, candidates, late_only=late_only, cache_dir=cache_dir)
        scores = candidate_scores(chat, candidates, layers, **how, progress=progress)
        return _choose(f"COSMIC{' (ACE)' * affine}", candidates, scores, layers, depth, max_kl)

    return kept_selection(chat, cache_dir, NAME, asked, select)


def _require_target(targets: str) -> None:
    must = "targets must be 'concatenated' or 'averaged'"
    require(targets in ("concatenated", "averaged"), NAME, must, repr(targets), "The paper concatenates.")


def evaluation_layers(
    chat: ChatModel, candidates: Candidates, *, late_only: bool = False, cache_dir: str | Path | None = None
) -> tuple[int, ...]:
    """The tenth of the layers (at least one) whose outputs differ most in direction between the train sides."""
    texts, n = [*candidates.refused_train, *candidates.answered_train], len(candidates.refused_train)
    states = capture_activations(chat, texts, hook="resid_post", positions=(-1,), cache_dir=cache_dir).values[:, :, 0]
    means = states[:n].double().mean(0), states[n:].double().mean(0)
    similarity = torch.cosine_similarity(*means, dim=-1)
    if late_only:
        similarity[: chat.n_layers // 2] = similarity.max()
    order = similarity.argsort(stable=True)[: max(1, int(SHARE * chat.n_layers))]
    return tuple(sorted(order.tolist()))


def candidate_scores(
    chat: ChatModel,
    candidates: Candidates,
    layers: Sequence[int],
    *,
    affine: bool = False,
    targets: str = "concatenated",
    strength: float = 1.0,
    progress: bool = False,
) -> pd.DataFrame:
    """Columns layer, pos, comply, refuse, total and kl, a row per place; NaN where the means coincide."""
    refused, answered = candidates.refused_val, candidates.answered_val
    sides = [effects(NAME, chat, texts, layers=layers).states[0] for texts in (refused, answered)]
    to_refused, to_answered = (_target(states, targets) for states in sides)
    before = first_token_logits(chat, answered)
    found: list[tuple] = []
    for layer in candidates.layers:  # one layer at a time, so that the states of few candidates are in memory
        own = [pos for pos in candidates.positions if _is_usable(candidates, layer, pos)]
        at = [candidates.at(layer, pos) for pos in own]
        if not own:
            continue
        less = [suppression(*each, layer, affine) for each in at]
        more = [induction(*each, layer, affine, strength if affine else 1.0) for each in at]
        suppressed = effects(NAME, chat, [*refused, *answered], less, unsteered=before, layers=layers)
        induced = effects(NAME, chat, answered, more, layers=layers)
        comply = _cosines(suppressed.states[:, : len(refused)], to_answered, targets)
        refuse = _cosines(induced.states, to_refused, targets)
        kl = suppressed.kl[:, len(refused) :].mean(1)
        found += zip([layer] * len(own), own, *(each.tolist() for each in (comply, refuse, kl)), strict=True)
        if progress:
            print(f"{NAME}: layer {layer} of {chat.n_layers} done")
    rows = pd.DataFrame(candidates.places, columns=["layer", "pos"])
    scores = pd.DataFrame(found, columns=["layer", "pos", "comply", "refuse", "kl"])
    rows = rows.merge(scores, on=["layer", "pos"], how="left")
    rows.insert(4, "total", rows["comply"] + rows["refuse"])
    return rows


def _is_usable(candidates: Candidates, layer: int, pos: int) -> bool:
    return bool(candidates.has_difference[candidates.places.index((layer, pos))])


def _target(states: States, targets: str) -> Tensor:
    """The mean state over prompts, averaged over layers or with the layers concatenated."""
    mean = states.double().mean(-3)
    return mean.mean(-2) if targets == "averaged" else mean.flatten(-2)


def _cosines(states: States, target: Tensor, targets: str) -> Float[Tensor, " coefficient"]:
    return torch.cosine_similarity(_target(states, targets), target[None], dim=-1)


def _choose(
    name: str,
    candidates: Candidates,
    scores: pd.DataFrame,
    layers: Sequence[int],
    depth: float,
    max_kl: float,
) -> Selection:
    limits = {f"KL > {max_kl:g}": scores["kl"] > max_kl, "deeper than the median": too_deep_at_the_end(scores)}
    notes = {
        "layers": list(layers),
        "n_refused": len(candidates.refused_val),
        "n_answered": len(candidates.answered_val),
        "n_train": [len(candidates.refused_train), len(candidates.answered_train)],
    }
    miss = scores["kl"] / max_kl - 1
    return choose(name, candidates, scores, limits, miss, objective="total", lowest=False, depth=depth, notes=notes)


def too_deep_at_the_end(scores: pd.DataFrame) -> pd.Series:
    """Whether a row is at position -1 and deeper than the others' median best layer by comply and by refuse."""
    others, is_deeper = scores[scores["pos"] < -1], scores["pos"] == -1
    for name in ("comply", "refuse"):
        known = others.dropna(subset=[name])
        if known.empty:
            return pd.Series(False, scores.index)
        best = known.loc[known.groupby("pos")[name].idxmax(), "layer"]
        is_deeper &= scores["layer"] > best.median()
    return is_deeper


def _search(study: Any, **options: Any) -> DirectionSet:
    found = cosmic(study.chat, study.draw, cache_dir=study.cache_dir, **options)
    return found.directions(study.provenance(*found.best), **options)


METHOD = SearchMethod(
    name=NAME,
    title="COSMIC",
    source="Siu et al., arXiv 2506.00085, section 3",
    needs=("forward passes",),
    options=OPTIONS,
    search=_search,
)
