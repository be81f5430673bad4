"""What the counts of a run depend on: its parameters, its prompts, a few facts about the model, and what is known."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import beta

from ...model.names import BUNDLED
from ...paper.tables import published_pool_rows
from ...prompts import load_languages, load_suffixes, twin_pairs
from ...prompts.draws import draw_prompts, held_out
from ...prompts.instructed import load_instructed
from ...prompts.loading import load_prompts
from ...study import Study
from ...tradeoff.controlled_set import balanced_sizes
from ..settings import Settings

LABEL, N_BY_BEHAVIOUR = "label", 32  # how prompts are drawn; most of a category if not by label
_QUANTILES = [0.1, 0.3, 0.5, 0.7, 0.9]  # of the share of prompts that a model refuses, given how many it refused


@dataclass(frozen=True)
class ModelFacts:
    """What the counts need to know about a model.

    `n_positions`: template positions after the prompt. `n_searched`: places that the search for the decision state
    tries, 0 if it is known. `layers_read`: how many layers a profile has. `refused`: of some harmful and of some benign
    prompts, how many the unsteered model refused, and how many it was asked; None if it was not asked.
    """

    n_layers: int
    decision_layer: int
    n_positions: int
    n_heads: int
    n_searched: int = 0
    layers_read: int = 0
    refused: tuple[tuple[int, int], tuple[int, int]] | None = None


@dataclass(frozen=True)
class Loop:
    """A loop over rows that run through the model: `prompts` under `conditions` each.

    `name` is that in the record of a run (`model.work`). `new_tokens`: the longest response, 0 if none is generated.
    `below`: the share of the layers that all conditions of a prompt share. `depth`: the share of the layers that run.
    `is_exact`: false if the number depends on what the model answers; then it is what is usual.
    """

    name: str
    prompts: int
    conditions: float = 1
    new_tokens: int = 0
    below: float = 0.0
    depth: float = 1.0
    is_exact: bool = True

    @property
    def rows(self) -> int:
        """Prompts times conditions."""
        return round(self.prompts * self.conditions)

    @property
    def passes(self) -> float:
        """Passes over a whole prompt through all layers that do the same work, without the response."""
        shared = self.below * self.prompts * min(1.0, self.conditions)
        return (shared + (1 - self.below) * self.rows) * self.depth


@dataclass(eq=False)
class Scene:
    """A run's parameters (`values`, defaults included), prompts and model; `read` and `asked` are the texts so far.

    `read`: texts whose activations at the places of a profile are in the cache; `asked`: those with a response of the
    unsteered model. Counts of later notebooks depend on both.
    """

    values: dict[str, Any]
    model: ModelFacts
    read: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, settings: Settings, model: ModelFacts) -> "Scene":
        """The scene of a run with these settings, from an empty cache."""
        fields = {name: info.default for name, info in Settings.model_fields.items()}
        return cls({**fields, **settings.sized, "MODEL": settings.MODEL}, model)

    def __getitem__(self, name: str) -> Any:
        """The value of a parameter."""
        return self.values[name]

    @property
    def is_bundled(self) -> bool:
        """Whether it is the bundled model."""
        return self["MODEL"] == BUNDLED

    @cached_property
    def study(self) -> Study:
        """A study with the prompts and the draw, which loads no model.

        Prompts are drawn as by label, because the model's answers are not known yet.
        """
        n = self["N_PROMPTS"] if self["SELECT_BY"] == LABEL else min(self["N_PROMPTS"], N_BY_BEHAVIOUR)
        return _study(self["MODEL"], self["PROMPTS"], self["SEED"], n, self["OVER_REFUSAL"])

    @property
    def draw(self) -> pd.DataFrame:
        """The drawn prompts."""
        return self.study.draw

    @cached_property
    def categories(self) -> list[str]:
        """The categories that have directions."""
        return [name for name in dict.fromkeys(self.draw["category"]) if name != "benign"]

    @cached_property
    def pool(self) -> pd.DataFrame:
        """The held-out prompts that the unsteered model is asked."""
        return self.held_out(self["N_POOL"])

    def held_out(self, n: int | None = None) -> pd.DataFrame:
        """`Study.held_out`, computed once for many plans."""
        return _held_out(self.study, n)

    def capture(self, texts: Iterable[str]) -> list[Loop]:
        """The capture of those of `texts` that were not read before, at the places of a profile."""
        new = {*texts} - self.read
        self.read |= new
        return [Loop("capture_activations", len(new))] if new else []

    def ask_pool(self) -> list[Loop]:
        """The responses of the unsteered model to the pool, generated by the first notebook that needs them."""
        new = {*self.pool["text"]} - self.asked
        self.asked |= new
        return [Loop("generate", len(new), new_tokens=self["MAX_NEW_TOKENS"])] if new else []

    def not_asked(self, texts: Iterable[str]) -> int:
        """How many of `texts` have no response of the unsteered model yet."""
        return len({*texts} - self.asked)

    def n_bucketed(self, n: int) -> int:
        """The prompts of a controlled set with up to `n` in each of its four buckets (`controlled_set`).

        They are what is expected of the refusals that the model was seen to make; if it was not asked, half of a side.
        """
        n_benign = int((self.pool["category"] == "benign").sum())
        sides, expected = (len(self.pool) - n_benign, n_benign), 0.0
        for n_side, (refused, asked) in zip(sides, self.model.refused or ((0, 0), (0, 0)), strict=True):
            shares = beta.ppf(_QUANTILES, refused + 0.5, asked - refused + 0.5) if asked else [0.5]
            sizes = [_side(share * n_side, n_side - share * n_side, n) for share in shares]
            expected += sum(sizes) / len(sizes)
        return round(expected)


def _side(refused: float, answered: float, n: int) -> float:
    """The prompts of one side of a controlled set, of so many that are refused and answered."""
    sizes = balanced_sizes({"HR": refused, "HC": answered, "BR": 0, "BC": 0}, n)
    return sum(sizes.values())


@cache
def _study(model: str, source: str, seed: int, n: int, over_refusal: str) -> Study:
    study = Study(model, source, Path("figures"), Path(".cache"), seed, {})
    rows = study.prompts[study.prompts["split"] == "train"]
    most = min(n, int(rows.groupby("category").size().min()))
    how: dict[str, Any] = {"outcome_of": None, "seed": seed, "over_refusal": over_refusal}
    drawn = draw_prompts(rows, LABEL, most, **how, published=published_pool_rows())
    vars(study)["draw"] = drawn.assign(prompts=source)
    return study


@cache
def _held_out(study: Study, n: int | None) -> pd.DataFrame:
    return study.held_out(n)


@cache
def widened(study: Study, n: int) -> pd.DataFrame:
    """`Study.widened`, computed once for many plans."""
    return study.widened(n)


@cache
def train_twins() -> pd.DataFrame:
    """The built-in prompts of the train split with their twins, which notebook 04 reads whatever PROMPTS is."""
    return twin_pairs(load_prompts(split="train"))


@cache
def unseen_twins(study: Study) -> pd.DataFrame:
    """The built-in prompts with twins that made no direction."""
    return twin_pairs(held_out(load_prompts(), study.draw, limit=None))


@cache
def instructed(split: str) -> pd.DataFrame:
    """The questions under system prompts of a split."""
    return load_instructed(split=split)


@cache
def parallel_prompts(source: str, known: tuple[str, ...] | None) -> pd.DataFrame:
    """The prompts in several languages, or in those that are known."""
    return load_languages(source, known)


@cache
def n_suffixes(source: str) -> int:
    """How many suffixes there are."""
    return len(load_suffixes(source))
