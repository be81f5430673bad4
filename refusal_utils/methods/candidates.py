"""Candidate directions at every layer and template position, and what each does to the first token of responses.

The engine of the methods that choose one direction by its effect (`arditi_selection`, `cosmic`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..checks import require, require_columns
from ..model.capture import capture_activations
from ..model.chat_model import ChatModel, check_positions
from ..prompts.categories import BENIGN
from ..steering import UNSTEERED, Ablation, Addition, Condition, respond
from ..steering.openings import first_ids, opening_ids
from ..steering.places import N_ASKED, N_AT_LEAST, N_TOKENS, POLICY, reading_half
from ..steering.shared_passes import read_first_tokens

EPSILON, KL_EPSILON = 1e-8, 1e-6  # those of Arditi et al.
NO_DIFFERENCE = 1e-4  # of the mean state's norm: a shorter difference is rounding error
SIDES = ("refused train", "answered train", "refused validation", "answered validation")
Place = tuple[int, int]  # (layer, pos)


@dataclass(frozen=True, eq=False)
class Candidates:
    """Differences in means at all places, and the validation prompts that they are tried on.

    `answered`: the mean states of the answered train prompts. `refused_train` to `answered_val`: texts. `tokens`: the
    ids that refusals begin with, if they are needed. `n_dropped`: how many prompts the data filter dropped.
    """

    layers: tuple[int, ...]
    positions: tuple[int, ...]
    differences: Float[Tensor, "layer pos d_model"] = field(repr=False)
    answered: Float[Tensor, "layer pos d_model"] = field(repr=False)
    refused_train: list[str] = field(repr=False)
    answered_train: list[str] = field(repr=False)
    refused_val: list[str] = field(repr=False)
    answered_val: list[str] = field(repr=False)
    tokens: tuple[int, ...] = ()
    n_dropped: int = 0

    def at(self, layer: int, pos: int) -> tuple[Float[Tensor, " d_model"], Float[Tensor, " d_model"]]:
        """(the raw difference, the mean state of the answered prompts) at one place."""
        index = self.layers.index(layer), self.positions.index(pos)
        return self.differences[index], self.answered[index]

    @property
    def places(self) -> list[Place]:
        """All (layer, pos), layer by layer."""
        return list(product(self.layers, self.positions))

    @property
    def has_difference(self) -> Bool[Tensor, " layer_pos"]:
        """Whether the two means differ by more than rounding error, for each of `places`."""
        return (self.differences.norm(dim=-1) > NO_DIFFERENCE * self.answered.norm(dim=-1)).flatten()


def find_candidates(
    function: str,
    chat: ChatModel,
    prompts: pd.DataFrame,
    *,
    n_train: int,
    n_validation: int,
    needs_tokens: bool,
    filter_prompts: bool,
    tokens: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    cache_dir: str | Path | None = None,
) -> Candidates:
    """The candidates from `prompts` (columns id, text, category): those of content policy against benign ones.

    Up to `n_train` prompts a side, at most half of each category, give the differences; up to `n_validation` others are
    kept. With `filter_prompts`, refused prompts with a refusal score of at most 0 and answered ones with one of at
    least 0 are dropped first (half of a side, if fewer than 4 would be left). `tokens` are found in the model's own
    refusals if needed. Raises `ValueError` in the name of `function` if a side has fewer than 4 prompts, if no token
    opens more refusals than answers, and for a position that the template does not have.
    """
    require_columns(function, prompts, "category", "text")
    positions = tuple(range(-len(chat.suffix), 0)) if positions is None else tuple(positions)
    check_positions(function, chat, positions)
    rows = prompts.sample(frac=1, random_state=0)
    sides = [rows[rows["category"].isin(kinds)] for kinds in (POLICY, (BENIGN,))]
    train = [reading_half(side, n_train) for side in sides]
    spare = [side.drop(half.index).head(max(N_ASKED, n_validation)) for side, half in zip(sides, train, strict=True)]
    if needs_tokens or filter_prompts:
        tokens = _own_tokens(function, chat, train, cache_dir) if tokens is None else tokens
    asked = [list(part["text"]) for part in (*train, *spare)]
    groups = _filtered(function, chat, asked, tuple(tokens or ())) if filter_prompts else asked
    _require_enough(function, groups)
    means = _means(chat, groups[0], groups[1], positions, cache_dir)
    texts = groups[0], groups[1], groups[2][:n_validation], groups[3][:n_validation]
    n_dropped, layers = sum(map(len, asked)) - sum(map(len, groups)), tuple(range(chat.n_layers))
    return Candidates(layers, positions, *means, *texts, tokens=tuple(tokens or ()), n_dropped=n_dropped)


def suppression(
    direction: Float[Tensor, " d_model"], answered: Float[Tensor, " d_model"], layer: int, affine: bool
) -> Condition:
    """The condition that takes refusal away, from a raw difference [d_model] and the answered prompts' mean [d_model].

    The direction is ablated everywhere; with `affine`, only at the input of `layer`, where the mean's component is
    kept.
    """
    unit = (direction / direction.norm())[None]
    edit = Ablation(unit, (layer,), answered) if affine else Ablation(unit)
    return Condition("suppress", (edit,))


def induction(
    direction: Float[Tensor, " d_model"],
    answered: Float[Tensor, " d_model"],
    layer: int,
    affine: bool,
    strength: float = 1.0,
) -> Condition:
    """The condition that adds `strength` times the raw difference [d_model] at the input of `layer`.

    With `affine`, the state's own component along it is first set to that of the answered prompts' mean.
    """
    added = Addition(strength * direction, (layer,))
    before = suppression(direction, answered, layer, affine).interventions if affine else ()
    return Condition("induce", (*before, added))


@dataclass(frozen=True, eq=False)
class Effects:
    """What conditions do: refusal scores and KL from the unsteered model per prompt, mean states after some layers.

    The KL is NaN for prompts without unsteered logits.
    """

    scores: Float[Tensor, "coefficient prompt"]
    kl: Float[Tensor, "coefficient prompt"]
    states: Float[Tensor, "coefficient prompt layer d_model"] = field(repr=False)


def effects(
    function: str,
    chat: ChatModel,
    prompts: Sequence[str],
    conditions: Sequence[Condition] = (UNSTEERED,),
    *,
    tokens: Sequence[int] = (),
    unsteered: Float[Tensor, "prompt d_vocab"] | None = None,
    layers: Sequence[int] = (),
    progress: bool = False,
) -> Effects:
    """The effects of `conditions` on `prompts`. `unsteered`: the unsteered logits of the last prompts, for the KL."""
    skipped = len(prompts) - (0 if unsteered is None else len(unsteered))

    def read(prompt_idx: Tensor, logits: Tensor, states: Tensor) -> tuple[Tensor, ...]:
        # One row at a time, because a large vocabulary in float64 does not fit into memory for a whole batch.
        scores, kl = [], []
        for prompt, row in zip(prompt_idx.tolist(), logits.float().cpu(), strict=True):
            scores.append(refusal_score(row, tokens))
            known = None if unsteered is None or prompt < skipped else unsteered[prompt - skipped]
            kl.append(row.new_tensor(torch.nan, dtype=torch.float64) if known is None else divergence(known, row))
        return torch.stack(scores), torch.stack(kl), states.float().cpu()

    return Effects(*read_first_tokens(function, chat, prompts, conditions, read, layers=layers, progress=progress))


def refusal_score(logits: Float[Tensor, " d_vocab"], tokens: Sequence[int]) -> Float[Tensor, ""]:
    """log(p + 1e-8) - log(1 - p + 1e-8) in float64, p the probability that the response begins with one of `tokens`."""
    p = logits.double().softmax(-1)[list(tokens)].sum()
    return (p + EPSILON).log() - (1 - p + EPSILON).log()


def divergence(unsteered: Float[Tensor, " d_vocab"], logits: Float[Tensor, " d_vocab"]) -> Float[Tensor, ""]:
    """The sum over tokens of p (log(p + 1e-6) - log(q + 1e-6)) in float64, from logits of p (unsteered) and q."""
    p, q = (each.double().softmax(-1) for each in (unsteered, logits))
    return (p * ((p + KL_EPSILON).log() - (q + KL_EPSILON).log())).sum()


def _own_tokens(
    function: str, chat: ChatModel, train: Sequence[pd.DataFrame], cache_dir: str | Path | None
) -> tuple[int, ...]:
    asked = pd.concat([side.head(N_ASKED) for side in train])
    given = respond(chat, asked, max_new_tokens=N_TOKENS, cache_dir=cache_dir)
    first = first_ids(chat, given["response"])
    found = opening_ids(*(first[given["outcome"] == outcome] for outcome in ("refused", "answered")))
    n_refused = int((given["outcome"] == "refused").sum())
    must, got = "refusals must begin with other tokens than answers", f"{n_refused} refusals that do not"
    require(bool(found), function, must, got, "Give `tokens`, or choose the place with LAYER='causal'.")
    return tuple(map(int, found))


def _require_enough(function: str, groups: Sequence[list[str]]) -> None:
    short = [f"{len(group)} {name}" for group, name in zip(groups, SIDES, strict=True) if len(group) < N_AT_LEAST]
    must = f"{N_AT_LEAST} prompts must be left on every side, of those that the model refuses or answers as labelled"
    require(not short, function, must, " and ".join(short), "Pass more prompts, or other tokens.")


def _filtered(function: str, chat: ChatModel, groups: Sequence[list[str]], tokens: tuple[int, ...]) -> list[list[str]]:
    """The refused prompts with a positive score and the answered ones with a negative score.

    If fewer than 4 of a side fit, because the model hardly refuses, the nearest half is kept, and a message printed.
    """
    kept = []
    for index, group in enumerate(groups):
        scores = effects(function, chat, group, tokens=tokens).scores[0] if group else torch.empty(0)
        margins = scores if index % 2 == 0 else -scores
        least, n_fit = 0.0, int((margins > 0).sum())
        if group and n_fit < N_AT_LEAST:
            least = float(margins.median())
            told = f"the half with the {'highest' if index % 2 == 0 else 'lowest'} refusal scores is kept"
            print(f"{function}: only {n_fit} of {len(group)} {SIDES[index]} prompts pass the data filter; {told}")
        kept.append([text for text, margin in zip(group, margins.tolist(), strict=True) if margin > least])
    return kept


def _means(
    chat: ChatModel, refused: list[str], answered: list[str], positions: tuple[int, ...], cache_dir: str | Path | None
) -> tuple[Tensor, Tensor]:
    """(raw differences, means of the answered) [layer, pos, d_model], from means in float64."""
    states = capture_activations(chat, [*refused, *answered], positions=positions, cache_dir=cache_dir).values
    means = [part.double().mean(0) for part in (states[: len(refused)], states[len(refused) :])]
    return (means[0] - means[1]).float(), means[1].float()
