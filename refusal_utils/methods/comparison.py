"""Several methods on the same states: do they find the same direction, how reproducibly, and how fast?"""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from ..directions import DirectionSet, Provenance, cosine_matrix
from ..plotting.look import heatmap
from ..prompts.categories import BENIGN
from .difference_in_means import METHOD as _MEANS
from .method import Confidence, Method, Sides, StateMethod, StateSource


@dataclass(frozen=True, eq=False)
class MethodComparison:
    """The first direction of every method, from one set of states.

    `vectors` are unit directions by name. `split_half` has the cosine between the directions of two random halves of
    the prompts, a column per split. `costs` has columns seconds and passes: what one fit takes, and how many prompts it
    runs through the model in addition to the captured states. `titles` are the methods' names for figures,
    without those that two share.
    """

    found: Mapping[str, DirectionSet] = field(repr=False)
    split_half: pd.DataFrame = field(repr=False)
    costs: pd.DataFrame
    titles: Mapping[str, str] = field(repr=False)

    @property
    def vectors(self) -> Float[Tensor, "category d_model"]:
        """The first direction of every method, in their order."""
        return torch.stack([directions.vectors[0] for directions in self.found.values()])

    @property
    def joined(self) -> DirectionSet:
        """These directions as one set, named after their methods."""
        sets = [*self.found.values()]
        gaps = torch.stack([each.gaps[0] for each in sets])
        return DirectionSet(tuple(self.found), self.vectors, gaps, sets[0].provenance)

    def cosines(self) -> pd.DataFrame:
        """Cosines between methods; on the diagonal the mean split-half cosine of each, which no pair need exceed.

        Two methods with a cosine near their split-half cosines agree as well as each agrees with itself on half the
        data.
        """
        matrix = cosine_matrix(self.vectors)
        matrix.fill_diagonal_(0)
        own = torch.tensor(self.split_half.mean(axis=1).to_numpy(), dtype=torch.float32)
        return pd.DataFrame((matrix + own.diag()).numpy(), index=list(self.found), columns=list(self.found))

    def table(self) -> pd.DataFrame:
        """By method: where it reads, cosine with the first, mean and lowest split half, gap, directions, costs."""
        halves = self.split_half
        places = [each.provenance for each in self.found.values()]
        columns = {
            "layer": [each.layer for each in places],
            "pos": [each.pos for each in places],
            f"cosine with {next(iter(self.found))}": cosine_matrix(self.vectors)[0].tolist(),
            "split half": halves.mean(axis=1).tolist(),
            "lowest": halves.min(axis=1).tolist(),
            "gap": [float(each.gaps[0]) for each in self.found.values()],
            "directions": [len(each) for each in self.found.values()],
        }
        return pd.DataFrame(columns, index=pd.Index(list(self.found), name="method")).join(self.costs)

    def searches(self, n_layers: int) -> pd.DataFrame:
        """By method that chooses its place: layer, depth (layer / `n_layers`), pos, and the scores of its choice."""
        rows = {
            name: {"layer": own.provenance.layer, "depth": own.provenance.layer / n_layers, "pos": own.provenance.pos}
            | own.provenance.settings["scores"]
            for name, own in self.found.items()
            if "scores" in own.provenance.settings
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")

    def figure(self, *, title: str) -> go.Figure:
        """A map of `cosines`."""
        named = self.cosines().rename(index=self.titles, columns=self.titles)
        return heatmap(named, title=title, value="cosine, resid_pre (diagonal: split half)")


def compare_methods(
    study: StateSource,
    methods: Mapping[str, Method],
    *,
    layer: int | None = None,
    pos: int | None = None,
    categories: Sequence[str] | None = None,
    n_splits: int = 10,
    seed: int = 0,
    trained: bool = False,
    **options: Mapping[str, Any],
) -> MethodComparison:
    """Every method's direction of these categories pooled (default: all), at `layer` and `pos` of a study's states.

    For the split halves, both sides are split at random `n_splits` times, in the same way for all methods. A
    `SearchMethod` chooses its own place, and its split halves are those of the difference in means there. A search that
    raises is left out, and its error is printed. A method that trains is left out unless `trained`; its split halves
    are NaN. `options`: those of a method by its name. Raises as the other methods do.
    """
    found, halves, costs, splits = {}, {}, {}, dict[Any, list[tuple[_Part, _Part]]]()
    for name, method in {name: each for name, each in methods.items() if trained or not each.trains}.items():
        searches, own, began = not isinstance(method, StateMethod), options.get(name, {}), time.perf_counter()
        at_place: dict[str, Any] = {"layer": layer, "pos": pos, "categories": categories, "pooled": True}
        try:
            found[name] = method.fit(study, **({} if searches else at_place), **own)
        except ValueError as error:
            if not searches:
                raise
            print(f"{name} is left out. {error}")
            continue
        seconds, origin = time.perf_counter() - began, found[name].provenance
        told = origin.settings if searches else {}
        costs[name] = {"seconds": told.get("seconds", seconds), "passes": told.get("passes", 0)}
        place = (origin.layer, origin.pos) if searches else (layer, pos)
        if place not in splits:
            splits[place] = _splits(study, place, n_splits, seed)
        fit = partial(_MEANS.fit if searches else partial(method.fit, **own), categories=categories, pooled=True)
        agreed = [float(fit(one).vectors[0] @ fit(other).vectors[0]) for one, other in splits[place]]
        halves[name] = [math.nan] * n_splits if method.trains else agreed
    return MethodComparison(found, pd.DataFrame(halves).T, pd.DataFrame(costs).T, _titles(methods, [*found]))


def _titles(methods: Mapping[str, Method], names: Sequence[str]) -> dict[str, str]:
    """The titles of the methods called `names`, unless two share one."""
    given = Counter(methods[name].title for name in names)
    return {name: methods[name].title for name in names if given[methods[name].title] == 1}


@dataclass(frozen=True, eq=False)
class _Part:
    """States as a study gives them, already read at one place."""

    refused: Sides
    answered: Tensor
    place: Provenance
    rated: Confidence | None

    def sides(self, layer: int | None = None, pos: int | None = None) -> tuple[Sides, Tensor]:
        return self.refused, self.answered

    def provenance(self, layer: int | None = None, pos: int | None = None) -> Provenance:
        return self.place

    def confidence(self) -> Confidence | None:
        return self.rated

    def rows(self, chosen: Mapping[str, Tensor]) -> "_Part":
        """The part of every side, "benign" included, that the indices `chosen` name."""
        refused = {name: rows[chosen[name]] for name, rows in self.refused.items()}
        rated = None if self.rated is None else {name: own[chosen[name]] for name, own in self.rated.items()}
        return _Part(refused, self.answered[chosen[BENIGN]], self.place, rated)


def _splits(study: StateSource, place: Any, n: int, seed: int) -> list[tuple[_Part, _Part]]:
    whole = _Part(*study.sides(*place), study.provenance(*place), study.confidence())
    return [_halves(whole, seed + number) for number in range(n)]


def _halves(whole: _Part, seed: int) -> tuple[_Part, _Part]:
    """Two random disjoint halves of every side."""
    draw = torch.Generator().manual_seed(seed)
    sides = {**whole.refused, BENIGN: whole.answered}
    orders = {name: torch.randperm(len(rows), generator=draw) for name, rows in sides.items()}
    first = {name: order[: len(order) // 2] for name, order in orders.items()}
    second = {name: order[len(order) // 2 :] for name, order in orders.items()}
    return whole.rows(first), whole.rows(second)
