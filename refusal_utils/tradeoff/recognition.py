"""Does a model that is steered still know which prompts are harmful? And would the text alone have told?

A direction that is ablated can no longer be read, so a new probe is trained on the states under each intervention. Two
rulers need no model: the length of the prompt, and its words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float
from sklearn.base import BaseEstimator
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch import Tensor

from ..checks import require
from ..model.chat_model import ChatModel
from ..plotting.tradeoff import interval_bars
from ..stats import bootstrap_counts, percentile_interval
from ..steering.conditions import UNSTEERED, Condition
from ..steering.steered_states import steered_states

N_FOLDS = 5
LENGTH, WORDS = "length alone", "words alone"


@dataclass(frozen=True, eq=False)
class Recognition:
    """How well harmful prompts are told from benign ones: by a probe under each intervention, and by two rulers.

    `scores` [prompt, category], a column per name, are out-of-fold scores, `harmful` what is true.
    """

    names: tuple[str, ...]
    scores: Float[Tensor, "prompt category"] = field(repr=False)
    harmful: Bool[Tensor, " prompt"] = field(repr=False)

    def table(self, n_draws: int = 1000, seed: int = 0) -> pd.DataFrame:
        """The AUC by name, its 95 % interval over prompts, and its difference to the unsteered model's with interval.

        The interval takes the probes as given: only the prompts that they are scored on are resampled.
        """
        data = self._aucs(torch.ones(len(self.harmful)).double())
        drawn = torch.stack([self._aucs(each) for each in bootstrap_counts(self.harmful.long(), n_draws, seed)])
        changes = _ends("change", drawn - drawn[:, :1])
        columns = {"AUC": data, **_ends("AUC", drawn), "change": data - data[:1], **changes}
        return pd.DataFrame({name: values.numpy() for name, values in columns.items()}, index=list(self.names))

    def _aucs(self, weights: Float[Tensor, " prompt"]) -> Float[Tensor, " category"]:
        counted = (self.harmful.numpy(), weights.numpy())
        aucs = [roc_auc_score(counted[0], own, sample_weight=counted[1]) for own in self.scores.T.numpy()]
        return torch.tensor(aucs, dtype=torch.float64)

    def figure(self, *, title: str) -> go.Figure:
        """The AUCs with their intervals."""
        table = self.table().rename(columns={"AUC": "accuracy", "AUC low": "low", "AUC high": "high"})
        return interval_bars(table, title=title, y="AUC, harmful against benign", marks={"chance": 0.5})


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
    regression with ridge penalty, five folds. Raises `ValueError` for fewer than 10 prompts on a side.
    """
    texts, harmful = list(prompts["text"]), prompts["harmful"].to_numpy(dtype=bool)
    least = int(min(harmful.sum(), (~harmful).sum()))
    must = "there must be at least 10 harmful and 10 benign prompts"
    require(least >= 10, "recognition", must, f"{harmful.sum()} and {(~harmful).sum()}", "Add prompts.")
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
