"""A method: its name, its source, what it needs, and a function that finds directions.

Most methods read the states of the drawn prompts at one place: a `StateMethod`, one short function. A `SearchMethod`
asks the model itself, for instance to choose the place. Both answer `fit(study, ...)` with a `DirectionSet`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import require
from ..directions import DirectionSet, Provenance, mean_difference, normalize
from ..prompts.categories import BENIGN

Sides = Mapping[str, Float[Tensor, "_ d_model"]]  # states by category
# From -1 (always answered) to 1 (always refused), for every prompt by category, "benign" included.
Confidence = Mapping[str, Float[Tensor, " _"]]
Find = Callable[..., Mapping[str, Tensor]]
POOLED = "refusal"  # the name of a direction from several categories together


@runtime_checkable
class StateSource(Protocol):
    """What a `StateMethod` needs of a `Study`: the states of its draw at any place, and where they come from."""

    def sides(
        self, layer: int | None = None, pos: int | None = None
    ) -> tuple[Sides, Float[Tensor, "answered_prompt d_model"]]:
        """(states of the refused prompts by category, of the benign prompts), by default at the decision place."""

    def provenance(self, layer: int | None = None, pos: int | None = None) -> Provenance:
        """Where these states come from."""

    def confidence(self) -> Confidence | None:
        """How consistently the model refuses each of the drawn prompts; None if that was not measured."""


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """One way to find refusal directions.

    `source`: the paper and equation. `needs`: what it takes besides states and labels, such as "forward passes", or
    "confidence" (of a `StateMethod`: how consistently the model refuses each prompt, if known).
    `options`: its settings by name, with their defaults.
    """

    name: str
    title: str
    source: str
    needs: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trains(self) -> bool:
        """Whether it takes gradients through the model, which is minutes of work rather than seconds."""
        return "gradients" in self.needs

    @abstractmethod
    def fit(self, study: Any, **options: Any) -> DirectionSet:
        """The directions that the method finds on a study's draw. Raises `ValueError` for an unknown option."""

    def chosen(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """All options, with `options` in place of their defaults. Raises `ValueError` for an unknown one."""
        unknown = [name for name in options if name not in self.options]
        must = f"an option must be one of {', '.join(self.options)}" if self.options else "there are no options"
        require(not unknown, self.name, must, ", ".join(unknown[:1]), "See METHODS[name].options.")
        return {**self.options, **options}


@dataclass(frozen=True, kw_only=True)
class StateMethod(Method):
    """A method that reads states at one place.

    `find(refused, answered, **options)` gets states [prompt, d_model] by category, and those of the benign prompts. It
    returns vectors [d_model] of any length by name; one that needs the confidence gets it as `confidence`, or None.
    `per_category` makes a `find` from a function of two sides. `reads`: the
    hook that the source reads. The output of a block ("resid_post") is the input of the next ("resid_pre"), so all
    methods get the same states; the provenance records the difference. `at_least`: prompts needed on every side.
    """

    find: Find
    reads: Literal["resid_pre", "resid_post"] = "resid_pre"
    at_least: int = 1

    def fit(
        self,
        study: StateSource,
        layer: int | None = None,
        pos: int | None = None,
        *,
        categories: Sequence[str] | None = None,
        pooled: bool = False,
        **options: Any,
    ) -> DirectionSet:
        """The directions at `layer` and `pos` (by default the decision place), of all categories or some.

        With `pooled`, the prompts of these categories are one side, called "refusal". Raises `ValueError` for a
        category without prompts, and as `find_directions` does.
        """
        refused, answered = study.sides(layer, pos)
        names = list(refused if categories is None else categories)
        missing, drawn = [name for name in names if name not in refused], ", ".join(refused)
        must = f"the categories must be among those drawn, {drawn}"
        require(not missing, self.name, must, ", ".join(missing[:1]), "Draw it, or leave it out.")
        confidence = study.confidence() if "confidence" in self.needs else None
        refused = {name: refused[name] for name in names}
        if pooled:
            refused = {POOLED: torch.cat([*refused.values()])}
            if confidence is not None:
                together = torch.cat([confidence[name] for name in names])
                confidence = {POOLED: together, BENIGN: confidence[BENIGN]}
        return self.find_directions(refused, answered, study.provenance(layer, pos), confidence, **options)

    def find_directions(
        self,
        refused: Sides,
        answered: Float[Tensor, "answered_prompt d_model"],
        provenance: Provenance,
        confidence: Confidence | None = None,
        **options: Any,
    ) -> DirectionSet:
        """The directions that the method finds in these states.

        Vectors are scaled to norm 1 and point from the answered to the refused prompts. A direction's gap is the
        distance between the two means along it, so strengths in gaps compare methods. The provenance records the
        method, its options, the vectors' norms before scaling, the hook that the source reads, and, for a method that
        needs the `confidence`, whether there was one. Raises `ValueError` for a side with too few prompts, for states
        that are not finite, for a confidence of other prompts, and as the method does.
        """
        chosen = self.chosen(options)
        for side, states in (*refused.items(), ("answered", answered)):
            _require_usable(self, side, states, provenance)
        given = {"confidence": confidence} if "confidence" in self.needs else {}
        if confidence is not None:
            _require_confidence(self, {**refused, BENIGN: answered}, confidence)
        found = self.find(refused, answered, **given, **chosen)
        everything = torch.cat([*refused.values()])
        differences = [mean_difference(refused.get(name, everything), answered) for name in found]
        vectors, gaps = zip(*map(_oriented, found.values(), differences), strict=True)
        norms = [float(vector.double().norm()) for vector in found.values()]
        settings = {**chosen, "norms": norms, "reads": self.reads}
        if given:
            settings["weights"] = "equal, no confidence given" if confidence is None else "confidence"
        notes = replace(provenance, estimator=self.name, settings=settings)
        return DirectionSet(tuple(found), normalize(torch.stack(vectors)), torch.stack(gaps), notes)


@dataclass(frozen=True, kw_only=True)
class SearchMethod(Method):
    """A method that asks the model: `search(study, **options)` returns the directions."""

    search: Callable[..., DirectionSet]

    def fit(self, study: Any, **options: Any) -> DirectionSet:
        """The directions that the search finds. Raises `ValueError` for an unknown option, and as the search does."""
        return self.search(study, **self.chosen(options))


def per_category(direction: Callable[..., Float[Tensor, " d_model"]]) -> Find:
    """A `find` that applies `direction(refused, answered, **options)`, states [prompt, d_model], to every category."""

    def find(refused: Sides, answered: Tensor, **options: Any) -> dict[str, Tensor]:
        return {name: direction(states, answered, **options) for name, states in refused.items()}

    return find


def _oriented(vector: Tensor, difference: Tensor) -> tuple[Tensor, Tensor]:
    """(the vector, or its opposite if it points away from `difference`; the length of `difference` along it)."""
    if torch.equal(vector, difference):
        return vector, difference.norm()
    along = difference.double() @ vector.double() / vector.double().norm().clamp(min=1e-300)
    return (vector if along >= 0 else -vector), along.abs().float()


def _require_usable(method: StateMethod, side: str, states: Tensor, place: Provenance) -> None:
    must, todo = f"there must be at least {method.at_least} prompts on every side", "Draw more prompts."
    require(len(states) >= method.at_least, method.name, must, f"{len(states)} of {side}", todo)
    rows = (~states.isfinite().all(-1)).nonzero()[:, 0].tolist()
    got = partial("prompt {} of {} at layer {}".format, rows[0] if rows else None, side, place.layer)
    require(not rows, method.name, "states must be finite", got(), "Drop the prompt, or use float32.")


def _require_confidence(method: StateMethod, sides: Sides, confidence: Confidence) -> None:
    must, todo = "every prompt must have a confidence from -1 to 1", "Measure it for the drawn prompts."
    for side, states in sides.items():
        own = confidence.get(side, states[:0])
        require(len(own) == len(states), method.name, must, f"{len(own)} for {len(states)} prompts of {side}", todo)
        require(bool((own.abs() <= 1).all()), method.name, must, f"another value for a prompt of {side}", todo)
