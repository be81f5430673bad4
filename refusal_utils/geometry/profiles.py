"""All numbers of the direction geometry at every layer and position."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from ..directions.estimation import mean_directions
from ..model.capture import Activations
from ..plotting.look import heatmap_menu
from ..plotting.pairs import heatmap_slider, pair_map
from ..prompts.categories import CATEGORIES
from .confounds import measure_confounds
from .labelled import Labelled, paired_sides
from .oracles import measure_oracles
from .pairs import PairTable, pair_table
from .stability import measure_stability
from .subspaces import space_summary

CLUSTERS = {category.id: category.cluster for category in CATEGORIES}


@dataclass(frozen=True, eq=False)
class Evidence:
    """The captured prompts that a profile is measured on.

    `drawn`: the draw; `wide`: the draw and others, for split halves; `twins`: refused prompts and their benign twins;
    `features`: a row per benign prompt of the draw; `buckets`: held-out prompts by the model's behaviour.
    """

    drawn: Labelled
    wide: Labelled
    twins: tuple[Labelled, Labelled]
    features: pd.DataFrame
    buckets: Mapping[str, Activations]


@dataclass(frozen=True, eq=False)
class DepthProfile:
    """One number for each question at every place, and the table of pairs there; see `depth_profile`.

    `by_place` has the index `layer`, `pos`; `pairs` the index `layer`, `pos`, `first`, `second`.
    """

    by_place: pd.DataFrame
    pairs: pd.DataFrame

    def table(self, pos: int) -> pd.DataFrame:
        """The numbers (rows) by layer (columns) at one position."""
        return self.by_place.xs(pos, level="pos").T

    def maps(self, pos: int) -> dict[int, pd.DataFrame]:
        """The map of plain cosines of each layer, at one position."""
        at = self.pairs["raw"].xs(pos, level="pos")
        return {layer: pair_map(at.loc[layer]) for layer in at.index.unique("layer")}

    def maps_figure(self, model: str, layer: int, pos: int) -> go.Figure:
        """`maps` with a slider that begins at `layer`."""
        title = f"Cosines between the refusal directions, layer by layer ({model} model)"
        return heatmap_slider(self.maps(pos), layer, title=title, value=f"cosine, resid_pre, pos {pos}")

    def figure(self, model: str) -> go.Figure:
        """A map of layers and positions for each number, chosen in a menu."""
        panels = {name: self.by_place[name].unstack("pos") for name in self.by_place}
        figure = heatmap_menu(panels, title=f"Cosines, stability and confounds at every place ({model} model)")
        figure.update_xaxes(title="position, from the end of the prompt")
        return figure.update_yaxes(title="layer (resid_pre)")


def depth_profile(evidence: Evidence, published: pd.Series, n_bucket: int, seed: int = 0) -> DepthProfile:
    """The profile over all captured positions and layers, except layer 0, where all prompts have the same states.

    `published`: cosines of the pairs in the order of the eleven categories; `n_bucket`: prompts a side of behaviour
    contrasts. Tests use as many null draws as at a single place; intervals use 200 draws.
    """
    activations = evidence.drawn.activations
    layers = [layer for layer in activations.layers if layer > 0]
    places = pd.MultiIndex.from_product([layers, activations.positions], names=["layer", "pos"])
    pairs = {place: pair_table(*evidence.drawn.sides(*place), n_draws=200, seed=seed) for place in places}
    rows = [_numbers_at(evidence, place, pairs[place], n_bucket, seed) for place in places]
    by_place = pd.DataFrame(rows, index=places)
    by_place["like published"] = [pairs[place].likeness(published.dropna()) for place in places]
    frames = {place: table.by_pair for place, table in pairs.items()}
    return DepthProfile(by_place, pd.concat(frames, names=["layer", "pos"]))


def _numbers_at(
    evidence: Evidence, place: tuple[int, int], pairs: PairTable, n_bucket: int, seed: int
) -> dict[str, float]:
    refused, answered = evidence.drawn.sides(*place)
    stability = measure_stability(refused, answered, evidence.wide.sides(*place), seed=seed)
    twins = paired_sides(*evidence.twins, *place)
    confounds = measure_confounds(refused, answered, evidence.features, twins)
    buckets = {name: own.at(*place) for name, own in evidence.buckets.items()}
    oracles = measure_oracles(buckets, n_bucket, n_intervals=200, seed=seed)
    directions = dict(zip(refused, mean_directions(refused, answered), strict=True))
    return {
        **pairs.numbers(),
        **stability.numbers(),
        **confounds.numbers(),
        **space_summary(directions, CLUSTERS),
        **oracles.numbers(),
    }
