"""How much of a direction is length, format or topic, and the map of cosines without these."""

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from ..directions.ablation import ablate
from ..directions.comparison import cosine_matrix, off_diagonal
from ..directions.estimation import feature_direction, mean_direction, mean_directions, normalize
from ..plotting.look import heatmap
from ..stats import adjust_p
from .gram import States, Twins, twin_contrasts
from .nulls import DISCOVERY, distinctness_p

# The readings of a direction r; `by_category` has a column for each.
READINGS = ("without features", "without topics", "twins")


@dataclass(frozen=True, eq=False)
class Confounds:
    """How much of each direction is format or topic; see `measure_confounds`.

    `by_category`: the cosine of each direction with the direction of every feature, with the direction of the
    category's own `topic`, and with the same direction in each of `READINGS`. `by_pair`: the cosine of every pair,
    `plain` and in each reading. `twins`: the states of refused prompts and their benign twins, by category.
    """

    by_category: pd.DataFrame
    by_pair: pd.DataFrame
    twins: Twins = field(repr=False)

    def table(self) -> pd.DataFrame:
        """`by_category` with columns named as cosines."""
        return self.by_category.rename(columns={name: f"r {name}" for name in READINGS})

    def figure(self, model: str, place: str) -> go.Figure:
        """`table` as a map, with a gap between other directions (features, topic) and the readings of r."""
        title = f"What the directions share with format and topic ({model} model)"
        figure = heatmap(self.table().rename_axis(None), title=title, value=f"cosine, {place}")
        n, n_others = len(self.by_category.columns), len(self.by_category.columns) - len(READINGS)
        figure.add_vline(n_others - 0.5, line={"color": "white", "width": 14})
        for middle, text in (
            (n_others / 2, "r and another direction"),
            ((n_others + n) / 2, "r and r in other readings"),
        ):
            note = {"text": text, "yref": "paper", "y": 1.01, "yanchor": "bottom", "showarrow": False}
            figure.add_annotation(x=middle - 0.5, **note)
        return figure

    def maps(self) -> pd.DataFrame:
        """For each reading, the mean cosine of the pairs and their correlation with the plain cosines."""
        alike = {name: np.corrcoef(own, self.by_pair["plain"])[0, 1] for name, own in self.by_pair.items()}
        return pd.DataFrame({"mean cosine": self.by_pair.mean(), "correlation with plain": alike})

    def n_distinct_twins(self, seed: int = 0) -> int:
        """How many pairs are distinct between twins (`distinctness_p`), at 5 % false discoveries among them."""
        return int((adjust_p(distinctness_p(twin_contrasts(self.twins), seed=seed)) < DISCOVERY).sum())

    def numbers(self) -> dict[str, float]:
        """One number for each question that the tables answer."""
        alike = self.maps()["correlation with plain"]
        features = self.by_category.drop(columns=["topic", *READINGS])
        return {
            "strongest feature": float(features.abs().max().max()),
            "strongest topic": float(self.by_category["topic"].abs().max()),
            "cosine with twins": float(self.by_category["twins"].mean()),
            **{f"{name} map, like plain": float(alike[name]) for name in READINGS},
        }


def measure_confounds(
    refused: States, answered: Float[Tensor, "answered_prompt d_model"], features: pd.DataFrame, twins: Twins
) -> Confounds:
    """The directions compared with those of features and topics, and read without them.

    `features` has a row per answered prompt and a column per feature, such as its length. `twins` has, by category, the
    states of refused prompts and of the benign ones that share their topic and format. A category's topic is the
    direction from the answered prompts to its benign twins. There are three readings: with the directions of all
    features projected out, with those of all topics projected out, and from benign to refused twins.
    """
    names, units = list(refused), mean_directions(refused, answered)
    columns = [torch.tensor(features[name].to_numpy(dtype=np.float32)) for name in features]
    axes = torch.stack([feature_direction(answered, values) for values in columns])
    topics = torch.stack([mean_direction(twins[name][1], answered) for name in names])
    between = torch.stack([mean_direction(*twins[name]) for name in names])
    cleaned = (normalize(ablate(units, removed)) for removed in (axes, topics))
    readings = dict(zip(READINGS, (*cleaned, between), strict=True))
    index = pd.Index(names, name="category")
    by_category = pd.DataFrame((units @ axes.T).numpy(), index=index, columns=list(features))
    for name, vectors in {"topic": topics, **readings}.items():
        by_category[name] = (units * vectors).sum(1).numpy()
    maps = {"plain": units, **readings}
    pairs = {name: off_diagonal(cosine_matrix(vectors)).numpy() for name, vectors in maps.items()}
    index = pd.MultiIndex.from_tuples(combinations(names, 2), names=["first", "second"])
    return Confounds(by_category, pd.DataFrame(pairs, index=index), twins)
