"""What a latent tells (its activation as a read-out of refusal) against what it does (adding its decoder row)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ..checks import require
from ..directions import DirectionSet, Provenance
from ..model.chat_model import ChatModel
from ..plotting.look import POINT_LOOK, label
from ..prompts.categories import BENIGN
from ..stats import percentile_interval
from ..steering import UNSTEERED, Condition
from ..steering.first_tokens import refusal_scores
from .firing import Firing
from .sae import SparseAutoencoder


@dataclass(frozen=True, eq=False)
class LatentEffects:
    """By latent, how well it is read and what it does.

    `rows`: category (whose list it leads), auc, effect (change of the refusal's log odds), low and high (95 %).
    """

    rows: pd.DataFrame = field(repr=False)

    def table(self) -> pd.DataFrame:
        """A row per latent, the largest effect first."""
        return self.rows.sort_values("effect", ascending=False)

    def correlation(self, n_draws: int = 1000, seed: int = 0) -> tuple[float, float, float]:
        """Spearman's rank correlation of auc and effect over latents, and its 95 % interval (bootstrap of latents)."""
        values = self.rows[["auc", "effect"]].dropna().to_numpy()
        drawn = np.random.default_rng(seed).integers(len(values), size=(n_draws, len(values)))
        draws = torch.tensor([float(spearmanr(*values[rows].T).statistic) for rows in drawn])
        low, high = percentile_interval(draws)
        return float(spearmanr(*values.T).statistic), float(low), float(high)

    def figure(self) -> go.Figure:
        """Effect against read-out, a point per latent in the colour of its category."""
        shown = self.rows.reset_index().assign(category=self.rows["category"].map(label).to_numpy())
        title = "Latents: readable (AUC of activation) against causal (effect of adding the decoder row)"
        how: dict[str, Any] = {**POINT_LOOK, "title": title, "hover_name": "latent", "symbol": "category"}
        names = {"auc": "AUC, own category against benign prompts", "effect": "change of the log odds of refusing"}
        return px.scatter(shown, x="auc", y="effect", color="category", labels=names, **how)


def leading_latents(firing: Firing, n: int) -> dict[int, str]:
    """The `n` best latents of every category, each once, with the category whose list it is highest in."""
    lists = {name: firing.top(name, n) for name in firing.names}
    leading: dict[int, str] = {}
    for row in range(n):
        for name, each in lists.items():
            leading |= {latent: name for latent in each[row : row + 1] if latent not in leading}
    return leading


def decoder_directions(sae: SparseAutoencoder, latents: Sequence[int], place: Provenance) -> DirectionSet:
    """The decoder rows of some latents as a direction each, named by its number; gaps are unknown.

    Raises `ValueError` for a place that is not the SAE's.
    """
    sae.require_place("decoder_directions", place.layer, place.hook)
    rows = torch.stack([sae.direction([latent]) for latent in latents])
    return DirectionSet(tuple(map(str, latents)), rows, torch.full((len(rows),), torch.nan), place)


def latent_effects(
    chat: ChatModel,
    sae: SparseAutoencoder,
    leading: Mapping[int, str],
    sides: Mapping[str, Float[Tensor, "_ d_model"]],
    conditions: Mapping[int, Condition],
    prompts: Sequence[str],
    tokens: Int[Tensor, " token"],
) -> LatentEffects:
    """Read-out and effect of each of the `leading` latents.

    `auc`: how well its activation tells the side of its category from the benign one, which should be held out; NaN if
    a side is missing. `effect`: under its condition,
    the mean change over `prompts` of the log odds that the response begins with one of `tokens`; NaN without a
    condition. Conditions should cost the same. Raises `ValueError` for no latent, and as `refusal_scores` does.
    """
    require(len(leading) > 0, "latent_effects", "at least one latent is needed", "none", "Name some.")
    activations = {name: sae.encode(side)[:, list(leading)].numpy() for name, side in sides.items() if len(side)}
    known = [latent for latent in leading if latent in conditions]
    scores = refusal_scores(chat, prompts, [UNSTEERED, *(conditions[latent] for latent in known)], tokens)
    changes = dict(zip(known, scores[1:] - scores[0], strict=True))
    rows = {}
    for column, (latent, category) in enumerate(leading.items()):
        change = changes.get(latent, torch.full((2,), torch.nan))
        half = 1.96 * float(change.std()) / len(change) ** 0.5
        pair = [activations[name][:, column] for name in (category, BENIGN) if name in activations]
        auc = _auc(*pair) if len(pair) == 2 else float("nan")
        mean = float(change.mean())
        rows[latent] = {"category": category, "auc": auc, "effect": mean, "low": mean - half, "high": mean + half}
    return LatentEffects(pd.DataFrame.from_dict(rows, orient="index").rename_axis("latent"))


def _auc(refused: np.ndarray, answered: np.ndarray) -> float:
    labels = np.repeat([1, 0], [len(refused), len(answered)])
    return float(roc_auc_score(labels, np.concatenate([refused, answered])))
