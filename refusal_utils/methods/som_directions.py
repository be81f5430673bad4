"""Directions from a self-organising map of the refused states: each neuron minus the mean of the answered states."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from minisom import MiniSom
from torch import Tensor

from ..directions import mean_direction
from ..plotting.look import SEQUENTIAL, add_menu, bar_title
from .method import Sides, StateMethod

OPTIONS: dict[str, Any] = {"rows": 4, "columns": 4, "steps": 10_000, "sigma": 0.3, "learning_rate": 0.01, "seed": 0}
CELL = 120  # pixels between two neurons of the figure


@dataclass(frozen=True, eq=False)
class SomMap:
    """A trained map of the refused states; see `som_map`.

    `neurons` in the order of the grid, `wins`: how many refused prompts are nearest to each; `places`: the centres of
    their hexagons, one unit apart; `answered`: the mean answered state; `quantisation_error`: the mean distance of a
    refused state to its nearest neuron, in units of the residual stream.
    """

    neurons: Float[Tensor, "direction d_model"] = field(repr=False)
    wins: Int[Tensor, " direction"]
    places: Float[Tensor, "direction 2"] = field(repr=False)
    answered: Float[Tensor, " d_model"] = field(repr=False)
    quantisation_error: float

    @property
    def order(self) -> list[int]:
        """The neurons that won prompts, most prompts first."""
        ranked = self.wins.argsort(descending=True, stable=True)
        return ranked[self.wins[ranked] > 0].tolist()

    @property
    def differences(self) -> dict[str, Float[Tensor, " d_model"]]:
        """Neuron minus mean answered state by name: `som_1` won most prompts; neurons without any are absent."""
        return {f"som_{rank}": self.neurons[own] - self.answered for rank, own in enumerate(self.order, 1)}

    @property
    def distances(self) -> Float[Tensor, " direction"]:
        """The U-matrix: each neuron's mean distance to its neighbours on the grid, in units of the residual stream."""
        near = (torch.cdist(self.places, self.places) - 1).abs() < 0.1
        apart = torch.cdist(self.neurons, self.neurons)
        return (apart * near).sum(1) / near.sum(1).clamp(min=1)

    def table(self) -> pd.DataFrame:
        """A row per neuron: prompts won, their share, length of the difference, cosine with the mean's, U-matrix."""
        differences = self.neurons - self.answered
        mean = self.wins.to(differences.dtype) @ differences
        names = pd.Series("", range(len(self.neurons)))
        names[self.order] = [*self.differences]
        columns = {
            "prompts won": self.wins,
            "share": self.wins / self.wins.sum(),
            "gap": differences.norm(dim=-1),
            "cosine with the mean": torch.nn.functional.cosine_similarity(differences, mean[None], dim=-1),
            "distance to neighbours": self.distances,
        }
        table = pd.DataFrame({name: values.numpy() for name, values in columns.items()})
        return table.set_index(pd.Index(names, name="direction"))

    def figure(self, model: str, place: str) -> go.Figure:
        """The grid of hexagons, coloured by distance to the neighbours (U-matrix) or by prompts won (menu)."""
        table, figure = self.table(), go.Figure()
        text = [f"{name or 'none'}<br>{wins}" for name, wins in zip(table.index, table["prompts won"], strict=True)]
        shown = ["distance to neighbours", "prompts won"]
        for number, name in enumerate(shown):
            marker = {"symbol": "hexagon", "size": 1.12 * CELL, "color": table[name], "colorscale": SEQUENTIAL}
            marker |= {
                "showscale": True,
                "colorbar": {"title": bar_title(name)},
                "line": {"color": "white", "width": 1},
            }
            is_bright = table[name] > table[name].min() + 0.6 * np.ptp(table[name])
            figure.add_scatter(
                x=self.places[:, 0].numpy(),
                y=self.places[:, 1].numpy(),
                mode="markers+text",
                marker=marker,
                text=text,
                textfont={"color": np.where(is_bright, "#222", "white")},
                customdata=table.round(3),
                hovertemplate="won %{customdata[0]}, gap %{customdata[2]}, cosine with the mean %{customdata[3]}"
                "<br>distance to neighbours %{customdata[4]}<extra></extra>",
                visible=number == 0,
            )
        title = f"A map of the refused prompts: direction and prompts won ({model} model)"
        spans = (self.places.amax(0) - self.places.amin(0) + 1.4) * CELL
        figure.update_layout(template="refusal", title=title, title_subtitle_text=place, showlegend=False)
        figure.update_layout(width=max(700, int(spans[0]) + 260), height=int(spans[1]) + 160)
        figure.update_xaxes(visible=False, range=[*_limits(self.places[:, 0])])
        figure.update_yaxes(visible=False, range=[*_limits(self.places[:, 1])], scaleanchor="x")
        return add_menu(figure, {name: [other == name for other in shown] for name in shown})


def som_map(
    refused: Mapping[str, Float[Tensor, "_ d_model"]],
    answered: Float[Tensor, "answered_prompt d_model"],
    *,
    rows: int = OPTIONS["rows"],
    columns: int = OPTIONS["columns"],
    steps: int = OPTIONS["steps"],
    sigma: float = OPTIONS["sigma"],
    learning_rate: float = OPTIONS["learning_rate"],
    seed: int = OPTIONS["seed"],
) -> SomMap:
    """A map of `rows` x `columns` neurons on a hexagonal grid, trained on the refused states of all categories.

    `sigma`: width of the neighbourhood, in cells: at 0.3 neighbours hardly move, and the map is online k-means. Neurons
    begin as random states. Prompts are sorted by their distance to the mean state before they are shuffled, so neither
    their order nor a rotation of the states matters. Raises `ValueError` if the two sides have the same mean.
    Source: Piras et al. 2511.08379; MiniSom. Their README has sigma 0.33, their script 2 x 2 neurons and sigma 0.1.
    """
    states = torch.cat([*refused.values()]).double()
    mean_direction(states.float(), answered)  # raises if there is none
    nearest_first = (states - states.mean(0)).norm(dim=-1).argsort(stable=True)
    data = states[nearest_first].numpy()
    som = MiniSom(columns, rows, data.shape[1], sigma, learning_rate, topology="hexagonal", random_seed=seed)
    som.random_weights_init(data)
    som.train(data, steps, random_order=True)
    neurons = torch.from_numpy(som.get_weights().reshape(-1, data.shape[1]))
    places = torch.from_numpy(np.stack(som.get_euclidean_coordinates(), axis=-1).reshape(-1, 2))
    apart = torch.cdist(states, neurons, compute_mode="donot_use_mm_for_euclid_dist")
    wins = torch.bincount(apart.argmin(1), minlength=len(neurons))
    error = float(apart.amin(1).mean())
    return SomMap(neurons.float(), wins, places.float(), answered.double().mean(0).float(), error)


def _find(refused: Sides, answered: Tensor, **options: Any) -> dict[str, Tensor]:
    return som_map(refused, answered, **options).differences


def _limits(values: Tensor) -> tuple[float, float]:
    return float(values.min()) - 0.7, float(values.max()) + 0.7


METHOD = StateMethod(
    name="som_directions",
    title="Self-organising map",
    source="Piras et al., arXiv 2511.08379, section 3",
    find=_find,
    options=OPTIONS,
    reads="resid_post",
)
