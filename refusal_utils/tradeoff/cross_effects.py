"""What an intervention along each category's direction does to the refusals of every category."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from torch import Tensor

from ..checks import require
from ..directions.direction_set import DirectionSet
from ..model.chat_model import ChatModel
from ..plotting.look import heatmap
from ..prompts.categories import CATEGORIES
from ..stats import bootstrap_counts, percentile_interval
from ..steering.conditions import UNSTEERED, Condition
from ..steering.first_tokens import kl_spent
from ..steering.responses import NOT_JUDGED, judged, respond
from .equal_cost import ablation_dial, strengths_at_cost

CLUSTER = {category.id: category.cluster for category in CATEGORIES}


@dataclass(frozen=True, eq=False)
class CrossEffects:
    """Refusals of every category's prompts under one intervention per direction, and without any.

    `rows` are judged responses with the columns category, direction ("" if unsteered) and outcome. `nats` are what each
    intervention costs, if it was measured.
    """

    rows: pd.DataFrame = field(repr=False)
    nats: pd.Series | None = None

    def table(self) -> pd.DataFrame:
        """The change of the refusal rate: a row per direction, a column per category of prompts.

        The last column, not judged, counts the responses without a verdict, under the direction and without any.
        """
        rates = self.rates()
        unjudged = rates.pop(NOT_JUDGED)
        return (rates.drop(index="") - rates.loc[""]).assign(**{NOT_JUDGED: unjudged.drop("") + unjudged[""]})

    def rates(self) -> pd.DataFrame:
        """Refusal rates by category (columns) and direction (rows; "" without any), and how many were not judged."""
        rows = judged(self.rows)
        refused = rows.assign(refused=(rows["outcome"] == "refused").astype(float))
        rates = refused.pivot_table(index="direction", columns="category", values="refused", sort=False)
        known = [name for name in CLUSTER if name in rates]
        rates = rates[[*known, *rates.columns.difference(known, sort=False)]]
        unjudged = (self.rows["outcome"] == NOT_JUDGED).groupby(self.rows["direction"]).sum()
        return rates.rename_axis(index="direction", columns="prompts").assign(**{NOT_JUDGED: unjudged})

    def by_cluster(self, n_draws: int = 1000, seed: int = 0, *, diagonal: bool = True) -> pd.DataFrame:
        """The mean change by cluster of the direction and of the prompts, with its 95 % interval over prompts.

        Rows: (cluster of the direction, cluster of the prompts), then their differences: own cluster minus the other.
        Columns: change, low, high. Prompts are resampled within categories, the same for all directions. A positive
        difference means that a cluster's directions lower the other cluster's refusals more than their own. Clusters
        without a direction or a prompt, and prompts with a response that was not judged, are left out. Without the
        `diagonal`, the category that a direction is of does not count: what remains is what its cluster shares.
        """
        changes, directions, prompts = self._drawn_changes(n_draws, seed)
        counted = torch.tensor([[diagonal or name != category for category in prompts] for name in directions]).double()
        rows, columns = ([CLUSTER.get(name, "") for name in names] for names in (directions, prompts))
        kinds = [kind for kind in dict.fromkeys(CLUSTER.values()) if kind in rows and kind in columns]
        found: dict[tuple[str, str], Tensor] = {}
        for kind, other in product(kinds, kinds):
            own, theirs = (
                torch.tensor([each == kind for each in rows]),
                torch.tensor([each == other for each in columns]),
            )
            weight = counted * own[:, None] * theirs
            found[kind, other] = (changes * weight).sum((1, 2)) / weight.sum()
        for kind, other in product(kinds, kinds):
            if kind != other:
                found[kind, "own minus other"] = found[kind, kind] - found[kind, other]
        values = [(float(each[0]), *map(float, percentile_interval(each[1:]))) for each in found.values()]
        index = pd.MultiIndex.from_tuples(found, names=["direction", "prompts"])
        return pd.DataFrame(values, index=index, columns=["change", "low", "high"])

    def _drawn_changes(self, n_draws: int, seed: int) -> tuple[Tensor, list[str], list[str]]:
        """(changes [draw, direction, category], the first of the data, others of resampled prompts; their names)."""
        rows = judged(self.rows)
        refused = rows.assign(refused=rows["outcome"] == "refused")
        wide = refused.pivot(index=["category", "id"], columns="direction", values="refused").astype(float).dropna()
        names = [name for name in dict.fromkeys(self.rows["direction"]) if name]
        changes = torch.tensor((wide[names].sub(wide[""], axis=0)).to_numpy())  # [prompt, direction]
        codes, categories = pd.factorize(wide.index.get_level_values("category"))
        strata = torch.tensor(codes)
        weights = torch.cat([torch.ones(1, len(strata)).double(), bootstrap_counts(strata, n_draws, seed)])
        member = torch.nn.functional.one_hot(strata).double()
        sums = torch.einsum("dp,pk,pc->dkc", weights, changes, member)
        return sums / member.sum(0), names, list(categories)

    def figure(self, *, title: str) -> go.Figure:
        """A map of the changes: direction by category of prompts."""
        return heatmap(self.table().drop(columns=NOT_JUDGED), title=title, value="change of the refusal rate")


def cross_effects(
    chat: ChatModel, prompts: pd.DataFrame, conditions: Mapping[str, Condition] | Sequence[Condition], **options: Any
) -> CrossEffects:
    """The responses to `prompts` (columns id, category, text) unsteered and under each of `conditions`.

    `conditions` stand for directions, by name or by their own `direction`. `options` are those of `respond`. Raises
    `ValueError` for two conditions of one direction.
    """
    own = conditions if isinstance(conditions, Mapping) else {each.direction: each for each in conditions}
    must, todo = "every condition must have a direction of its own", "Pass them by name."
    require(len(own) == len(conditions), "cross_effects", must, f"{len(conditions)} for {len(own)}", todo)
    rows = respond(chat, prompts[["id", "category", "text"]], [UNSTEERED, *own.values()], **options)
    names = [name for name in ("", *own) for _ in range(len(prompts))]
    return CrossEffects(rows.assign(direction=names))


def ablation_effects(
    chat: ChatModel,
    prompts: pd.DataFrame,
    directions: DirectionSet,
    cost_prompts: Sequence[str],
    budget: float = 0.1,
    **options: Any,
) -> CrossEffects:
    """`cross_effects` of ablations that all spend as much as the cheapest does in full, at most `budget` nats.

    Costs are means over `cost_prompts`. Raises `ValueError` as `strengths_at_cost` does.
    """
    dials = {name: ablation_dial(directions, name) for name in directions}
    whole = kl_spent(chat, cost_prompts, [dial(1.0) for dial in dials.values()])
    affordable = (min(budget, float(whole.min())),)
    found = strengths_at_cost(chat, dials, cost_prompts, affordable, most=1.0).set_index("name")
    equal = {name: dials[name](float(found["strength"][name])) for name in dials}
    return replace(cross_effects(chat, prompts, equal, **options), nats=found["nats"])
