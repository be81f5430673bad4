"""What trained directions have in common: prompts, place, targets, losses, and the effects that choose among them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..checks import require, require_columns, require_known
from ..directions import DirectionSet, Provenance
from ..model.chat_model import ChatModel
from ..model.store import content_key
from ..steering import first_token_logits
from .arditi_selection import arditi_selection
from .candidates import Candidates, Place, effects, find_candidates, induction, suppression
from .losses import KL, WEIGHTS, Losses, require_gradients
from .selection import MAX_KL
from .targets import make_targets

OPTIONS: dict[str, Any] = {
    "kl": "paper",
    "n_updates": 74,
    "n_prompts": 16,
    "rate": 1e-2,
    "patience": None,
    "place": None,
    "tokens": None,
    "n_train": 128,
    "n_validation": 32,
    "filter_prompts": True,
    "seed": 0,
}
N_LAST = 20  # updates among which the paper chooses


@dataclass(frozen=True, eq=False)
class Training:
    """The prompts and losses that directions of one model are trained with.

    `candidates`: the prompts, and the differences in means; `difference`: the raw one at `layer` and `pos`, whose norm
    is the strength of additions. `key`: what a stored descent depends on. `seed` orders the prompts.
    """

    losses: Losses
    candidates: Candidates = field(repr=False)
    difference: Float[Tensor, " d_model"] = field(repr=False)
    layer: int
    pos: int
    key: str
    seed: int = 0

    def chosen(self, update: int, n_prompts: int) -> list[list[int]]:
        """The prompts of an update, for each kind of target: in random order, and again when all were used."""
        return [batch_of(len(kind), n_prompts, update, self.seed) for kind in self.losses.kinds]

    def path(self, cache_dir: str | Path | None, *asked: Any) -> Path | None:
        """The file of a descent with these options; None without a cache."""
        function = self.losses.function
        key = content_key(self.key, function, self.losses.kl, self.losses.weights, self.seed, *asked)
        return None if cache_dir is None else Path(cache_dir) / f"{function}_{key}.safetensors"

    def scores(self, directions: Float[Tensor, "direction d_model"]) -> pd.DataFrame:
        """Columns bypass, induce and kl of `arditi_selection`, a row per unit direction, on the validation prompts."""
        chat, own, (refused, answered) = self.losses.chat, self.losses.function, self.validation
        nothing = torch.zeros(chat.d_model)
        less = [suppression(each, nothing, self.layer, affine=False) for each in directions]
        more = [induction(self.losses.strength * each, nothing, self.layer, affine=False) for each in directions]
        tokens, before = self.candidates.tokens, first_token_logits(chat, answered)
        suppressed = effects(own, chat, [*refused, *answered], less, tokens=tokens, unsteered=before)
        induced = effects(own, chat, answered, more, tokens=tokens)
        columns = {
            "bypass": suppressed.scores[:, : len(refused)].mean(1),
            "induce": induced.scores.mean(1),
            "kl": suppressed.kl[:, len(refused) :].mean(1),
        }
        return pd.DataFrame({name: values.tolist() for name, values in columns.items()})

    @property
    def validation(self) -> tuple[list[str], list[str]]:
        """(refused, answered) prompts that nothing was trained on."""
        return self.candidates.refused_val, self.candidates.answered_val

    def directions(
        self, names: Sequence[str], vectors: Float[Tensor, "direction d_model"], place: Provenance, /, **settings: Any
    ) -> DirectionSet:
        """Trained unit vectors as a set; their gap is the strength that additions had in training."""
        told = {**settings, "reads": "resid_pre", "norms": [1.0] * len(names)}
        told |= {
            "n_targets": [len(kind) for kind in self.losses.kinds],
            "answers_refused": self.losses.targets.n_refused,
        }
        gaps = torch.full((len(names),), self.losses.strength)
        where = replace(place, layer=self.layer, pos=self.pos, estimator=self.losses.function, settings=told)
        return DirectionSet(tuple(names), vectors, gaps, where)


def prepare(
    function: str,
    chat: ChatModel,
    prompts: pd.DataFrame,
    *,
    kl: str = "paper",
    weights: tuple[float, float, float] = WEIGHTS,
    place: Place | None = None,
    tokens: Sequence[int] | None = None,
    n_train: int = 128,
    n_validation: int = 32,
    filter_prompts: bool = True,
    seed: int = 0,
    cache_dir: str | Path | None = None,
) -> Training:
    """The training on `prompts` (columns id, text, category), split and filtered as in `find_candidates`.

    `place`: (layer, pos) of the difference in means; by default the one that `arditi_selection` chooses. Raises
    `ValueError` in the name of `function` for a model without gradients, for another `kl`, if no difference in means
    passes the selection, for a layer that the model does not have, and as `find_candidates` and `make_targets` do.
    """
    require_columns(function, prompts, "id", "category", "text")
    require_gradients(function, chat)
    require_known(function, "kl", kl, KL)
    options: dict[str, Any] = {"n_train": n_train, "n_validation": n_validation, "filter_prompts": filter_prompts}
    options["tokens"] = None if tokens is None else list(tokens)
    if place is not None:
        _require_place(function, chat, place)
    asked = [list(prompts["id"]), list(prompts["text"]), options, place]
    found = find_candidates(function, chat, prompts, needs_tokens=True, cache_dir=cache_dir, **options)
    layer, pos = place or _selected(function, chat, prompts, options, cache_dir)
    difference, mean = _difference_at(function, found, layer, pos)
    suppress, induce = (change(difference, mean, layer, affine=False) for change in (suppression, induction))
    sides = found.refused_train, found.answered_train
    targets = make_targets(function, chat, *sides, suppress=suppress, induce=induce, cache_dir=cache_dir)
    losses = Losses(function, chat, targets, layer, float(difference.norm()), kl, weights)
    return Training(losses, found, difference, layer, pos, content_key(chat.fingerprint, *asked), seed)


def best_of(scores: pd.DataFrame, *, max_kl: float = MAX_KL, min_induce: float = 0.0) -> int:
    """The row with the lowest bypass among those that cost at most `max_kl` and induce; if none does, the nearest."""
    miss = pd.concat([scores["kl"] / max_kl - 1, min_induce - scores["induce"]], axis=1).max(axis=1).clip(lower=0)
    return int(scores.assign(miss=miss).sort_values(["miss", "bypass"], kind="stable").index[0])


def batch_of(n: int, n_prompts: int, update: int, seed: int) -> list[int]:
    """The `n_prompts` of `n` prompts that an update uses: one random order after another, cut into batches."""
    places = range(update * n_prompts, (update + 1) * n_prompts)
    return [int(_order(n, place // n, seed)[place % n]) for place in places]


def _order(n: int, epoch: int, seed: int) -> Int[Tensor, " prompt"]:
    return torch.randperm(n, generator=torch.Generator().manual_seed(1_000_003 * seed + epoch))


def _selected(
    function: str, chat: ChatModel, prompts: pd.DataFrame, options: dict[str, Any], cache_dir: str | Path | None
) -> Place:
    found = arditi_selection(chat, prompts, complete=False, cache_dir=cache_dir, **options)
    must = "a difference in means must pass Arditi's selection, because the targets are generated with it"
    killed = ", ".join(f"{name} killed {n}" for name, n in found.filters()["killed"].items())
    todo = f"Give place=(layer, pos), for instance {found.best}."
    require(len(found.survivors) > 0, function, must, f"none of {len(found.rows)}: {killed}", todo)
    return found.best


def _difference_at(function: str, found: Candidates, layer: int, pos: int) -> tuple[Tensor, Tensor]:
    differs = bool(found.has_difference[found.places.index((layer, pos))])
    must = "the means of refused and answered prompts must differ at the place"
    got = f"layer {layer}, position {pos}, where they are equal"
    require(differs, function, must, got, "Choose a later layer or position.")
    return found.at(layer, pos)


def _require_place(function: str, chat: ChatModel, place: Place) -> None:
    layers, positions = range(chat.n_layers), range(-len(chat.suffix), 0)
    must = f"place must be a layer from 0 to {chat.n_layers - 1} and a position from {positions[0]} to -1"
    is_pair = len(place) == 2 and all(isinstance(each, Integral) for each in place)
    fits = is_pair and place[0] in layers and place[1] in positions
    require(fits, function, must, place, "Leave it out to have it selected.")
