"""Does a model that is steered still know which prompts are harmful? And would the text alone reveal it?

A direction that is ablated can no longer be read, so a new probe is trained on the states under each intervention. Two
baselines need no model: the length of the prompt, and its words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float
from sklearn.base import BaseEstimator
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch import Tensor

from ..checks import require
from ..model.chat_model import ChatModel
from ..plotting.look import BLUE, WIDTH
from ..stats import bootstrap_counts, percentile_interval
from ..steering.conditions import UNSTEERED, Condition
from ..steering.steered_states import steered_states

N_FOLDS = 5
LENGTH, WORDS = "length alone", "words alone"


@dataclass(frozen=True, eq=False)
class Recognition:
    """How well harmful prompts are told from benign ones: by a probe under each intervention, and by two baselines.

    `scores` [prompt, category], a column per name, are out-of-fold scores, `harmful` what is true.
    """

    names: tuple[str, ...]
    scores: Float[Tensor, "prompt category"] = field(repr=False)
    harmful: Bool[Tensor, " prompt"] = field(repr=False)

    def table(self, n_draws: int = 1000, seed: int = 0) -> pd.DataFrame:
        """The AUC by name, its 95 % interval over prompts, and its difference to the unsteered model's with interval.

        The interval takes the probes as given: only the prompts that they are scored on are resampled.
        """
        strata = self.harmful.long()
        weights = torch.cat([torch.ones(1, len(strata)).double(), bootstrap_counts(strata, n_draws, seed)])
        data, drawn = (aucs := self._aucs(weights))[0], aucs[1:]
        changes = _ends("change", drawn - drawn[:, :1])
        columns = {"AUC": data, **_ends("AUC", drawn), "change": data - data[:1], **changes}
        return pd.DataFrame({name: values.numpy() for name, values in columns.items()}, index=list(self.names))

    def _aucs(self, weights: Float[Tensor, "draw prompt"]) -> Float[Tensor, "draw category"]:
        """The weighted share of pairs of a harmful and a benign prompt that are in the right order; ties count half."""
        above, below = self.scores[self.harmful].double(), self.scores[~self.harmful].double()
        right = (above[:, None] > below).double() + (above[:, None] == below).double() / 2
        one, other = weights[:, self.harmful], weights[:, ~self.harmful]
        return torch.einsum("dp,pnk,dn->dk", one, right, other) / (one.sum(1) * other.sum(1))[:, None]

    def figure(self, *, title: str, names: Mapping[str, str] | None = None) -> go.Figure:
        """The AUCs with their intervals; the dashed line is chance. `names` are those of conditions, to be shown."""
        table = self.table().rename(index=names or {}).rename_axis("states").reset_index()
        ends = {"error_x": table["AUC high"] - table["AUC"], "error_x_minus": table["AUC"] - table["AUC low"]}
        look: dict[str, Any] = {"template": "refusal", "width": WIDTH, "height": 200 + 30 * len(table)}
        axes = {"AUC": "AUC of a probe, harmful against benign", "states": ""}
        figure = px.scatter(table, x="AUC", y="states", title=title, labels=axes, range_x=[0, 1], **ends, **look)
        figure.update_traces(marker={"size": 9, "color": BLUE}, error_x_thickness=1.2)
        figure.add_vline(x=0.5, line={"dash": "dash", "color": "#444"})
        return figure.update_yaxes(autorange="reversed")


def recognition(
    chat: ChatModel,
    prompts: pd.DataFrame,
    conditions: Mapping[str, Condition],
    *,
    layer: int | None = None,
    pos: int = -1,
    seed: int = 0,
) -> Recognition:
    """Cross-validated scores for `prompts` (columns text and harmful) unsteered and under each of `conditions`.

    The states are `resid_post` of `layer` (default: the last) at template position `pos`; the probe is a logistic
    regression with ridge penalty, five folds. Raises `ValueError` for fewer than 5 prompts on a side.
    """
    texts, harmful = list(prompts["text"]), prompts["harmful"].to_numpy(dtype=bool)
    least = int(min(harmful.sum(), (~harmful).sum()))
    must = f"there must be at least {N_FOLDS} harmful and {N_FOLDS} benign prompts"
    require(least >= N_FOLDS, "recognition", must, f"{harmful.sum()} and {(~harmful).sum()}", "Add prompts.")
    found = {}
    for name, condition in {"unsteered": UNSTEERED, **conditions}.items():
        states = steered_states(chat, texts, condition, layer=layer, pos=pos).double().numpy()
        found[name] = _scores(_probe(), states, harmful, seed)
    lengths = FunctionTransformer(lambda given: np.array([[np.log(1 + len(text.split()))] for text in given]))
    found[LENGTH] = _scores(make_pipeline(lengths, _probe()), texts, harmful, seed)
    found[WORDS] = _scores(make_pipeline(TfidfVectorizer(sublinear_tf=True), _regression()), texts, harmful, seed)
    return Recognition(tuple(found), torch.tensor(np.stack([*found.values()], axis=1)), torch.tensor(harmful))


def _probe() -> BaseEstimator:
    return make_pipeline(StandardScaler(), _regression(C=0.01))


def _regression(C: float = 1.0) -> BaseEstimator:
    return LogisticRegression(C=C, max_iter=2000, class_weight="balanced")


def _scores(model: BaseEstimator, given: Sequence[str] | np.ndarray, harmful: np.ndarray, seed: int) -> np.ndarray:
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed)
    return cross_val_predict(model, given, harmful, cv=folds, method="decision_function")


def _ends(name: str, drawn: Float[Tensor, "draw category"]) -> dict[str, Tensor]:
    low, high = percentile_interval(drawn)
    return {f"{name} low": low, f"{name} high": high}
