"""Refusal tokens: what a threshold on the first token of a response does to refusals, from one pass per prompt.

A model with control tokens begins every response with the token of a kind of refusal or with that of answers. Their
probabilities are read once per prompt, and the responses after either token are generated once; a threshold only
decides which of the two a prompt gets. Refusals are counted by text, because a model may refuse after the token for
answers. Source: Jain et al. 2412.06748. On a model without control tokens the same is a proxy (`OpeningProxy`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ..checks import require
from ..model.chat_model import ChatModel
from ..plotting.look import category_lines
from ..stats import bootstrap_counts, percentile_interval, wilson
from ..steering.conditions import UNSTEERED
from ..steering.control_tokens import ControlTokens, FirstTokens, OpeningProxy
from ..steering.responses import respond
from ..steering.shared_passes import read_first_tokens

THRESHOLDS = (0.0, 0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999)
N_BINS = 5  # of equal numbers of prompts


@dataclass(frozen=True, eq=False)
class ForcedResponses:
    """Pairs of prompts with the outcome of their responses after a refusing and after an answering first token.

    `rows` has the columns of `contrast_pairs`, those of `FirstTokens` (score, own_refuses, probability), `named` (the
    kind of the likeliest refusing token), and the outcomes `after refusing` and `after answering` with the responses.
    `kind` is "control tokens" or "proxy".
    """

    kind: str
    rows: pd.DataFrame = field(repr=False)

    def refused(self, forced: Sequence[bool] | pd.Series) -> pd.Series:
        """Whether each prompt is refused in words if those in `forced` get their refusing token, the others not."""
        after = self.rows["after refusing"].where(np.asarray(forced), self.rows["after answering"])
        return after == "refused"

    def table(self, n_draws: int = 1000, seed: int = 0) -> pd.DataFrame:
        """By category and for all: refusal rates of prompts and twins, and F1, if the model chooses its own token."""
        own = self.refused(self.rows["own_refuses"])
        found = {name: _scores(self.rows[part], own[part], n_draws, seed) for name, part in self._parts().items()}
        return pd.DataFrame.from_dict(found, orient="index").rename_axis("category")

    def thresholds(self, levels: Sequence[float] = THRESHOLDS, n_draws: int = 1000, seed: int = 0) -> pd.DataFrame:
        """The `table` of every threshold on the probability of a category's token, for that category alone.

        Prompts whose likeliest refusing token is the category's are refused from that probability on and answered below
        it; the others keep their own token. Rows (category, threshold). A proxy has one kind of token, for all
        categories.
        """
        found, own = {}, self.rows["own_refuses"]
        for name, part in self._parts().items():
            selected = self.rows["named"].eq(name) | (self.kind == "proxy") | (name == "all")
            for level in levels:
                refused = self.refused(own.where(~selected, self.rows["probability"] >= level))
                found[name, level] = _scores(self.rows[part], refused[part], n_draws, seed)
        return pd.DataFrame.from_dict(found, orient="index").rename_axis(["category", "threshold"])

    def biases(self, n: int = 17) -> list[float]:
        """Biases on the score that move the share of forced refusals in equal steps from nearly none to nearly all."""
        return [float(each) for each in np.unique(-self.rows["score"].quantile(np.linspace(0.02, 0.98, n)).round(6))]

    def biased(self, levels: Sequence[float]) -> pd.DataFrame:
        """The outcomes with a bias on the score, as rows of a sweep: direction is `kind`, gaps the bias in log odds."""
        parts = []
        for level in levels:
            forced = self.rows["score"] + level >= 0
            said = {
                name: self.rows[f"{part}after refusing"].where(forced, self.rows[f"{part}after answering"])
                for name, part in (("outcome", ""), ("response", "response "))
            }
            parts.append(self.rows.assign(direction=self.kind, gaps=float(level), **said))
        return pd.concat(parts, ignore_index=True)

    def forcing(self) -> pd.DataFrame:
        """How often the words do not follow the forced token, with Wilson intervals.

        After the answering token: the share refused of the prompts that the model refuses by itself. After the refusing
        token: the share answered of those that it answers.
        """
        own = self.refused(self.rows["own_refuses"])
        cases = {
            "answering token, refused all the same": self.rows.loc[own, "after answering"] == "refused",
            "refusing token, answered all the same": self.rows.loc[~own, "after refusing"] == "answered",
        }
        found = {name: (int(case.sum()), len(case)) for name, case in cases.items()}
        rows = {name: (k / n, *wilson(k, n), n) if n else (*[float("nan")] * 3, 0) for name, (k, n) in found.items()}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["share", "low", "high", "n"])

    def calibration(self) -> pd.DataFrame:
        """By fifths of the score: the mean probability of refusing, and the share of prompts that should be refused."""
        fifth = pd.qcut(self.rows["score"].rank(method="first"), N_BINS, labels=False).rename("fifth") + 1
        groups = self.rows.assign(probability=1 / (1 + np.exp(-self.rows["score"]))).groupby(fifth)
        table = groups.agg(probability=("probability", "mean"), share=("harmful", "mean"), n=("harmful", "size"))
        edges = [wilson(round(share * n), int(n)) for share, n in zip(table["share"], table["n"], strict=True)]
        return table.assign(low=[low for low, _ in edges], high=[high for _, high in edges])

    def auc(self, n_draws: int = 1000, seed: int = 0) -> tuple[float, float, float]:
        """(AUC of the score for prompts against twins, low, high), with a bootstrap interval over pairs."""
        score, harmful = self.rows["score"].to_numpy(), self.rows["harmful"].to_numpy()
        counts = bootstrap_counts(torch.zeros(len(score) // 2, dtype=torch.long), n_draws, seed)
        drawn = [roc_auc_score(harmful, score, sample_weight=np.tile(each, 2)) for each in counts.numpy()]
        low, high = percentile_interval(torch.tensor(drawn))
        return float(roc_auc_score(harmful, score)), float(low), float(high)

    def figure(self, levels: Sequence[float] = THRESHOLDS, *, title: str) -> go.Figure:
        """F1 of every category over the threshold on its token's probability, which is not to scale."""
        table = self.thresholds(levels, n_draws=1)["F1"].unstack("category")
        shown = table[[name for name in self._parts() if name != "all"]].rename(index=lambda level: f"{level:g}")
        how = {"x": "threshold on the probability of the category's token", "y": "F1, prompts against twins"}
        return category_lines(shown, title=title, range_y=(0.0, 1.04), **how).update_xaxes(type="category")

    def _parts(self) -> dict[str, pd.Series]:
        """Which rows belong to each category, and to all."""
        names = list(dict.fromkeys(self.rows["category"]))
        return {name: self.rows["category"] == name for name in names} | {"all": self.rows["category"].notna()}


def force_first_tokens(
    chat: ChatModel,
    pairs: pd.DataFrame,
    tokens: ControlTokens | OpeningProxy,
    *,
    temperature: float = 1.0,
    **responding: Any,
) -> ForcedResponses:
    """The responses to `pairs` (`contrast_pairs`) after the likeliest refusing and the answering first token.

    One forward pass per prompt gives all probabilities; logits are divided by `temperature`. `responding`: options of
    `respond`. Pairs with a response that is not judged are left out. Raises `ValueError` without two whole pairs, and
    for a temperature that is not positive.
    """
    name, texts = "force_first_tokens", list(pairs["text"])
    require(temperature > 0, name, "temperature must be positive", temperature, "The paper uses 1, 1.5 and 2.")

    def read(prompt_idx: Tensor, logits: Tensor, states: Tensor) -> FirstTokens:
        return tokens.read(logits.float().cpu(), temperature)

    found = FirstTokens(*(each[0] for each in read_first_tokens(name, chat, texts, [UNSTEERED], read)))
    kinds = [tokens.names[each] for each in found.named_idx] if tokens.names else [""] * len(texts)
    read_off = {each: getattr(found, each).tolist() for each in ("score", "own_refuses", "probability")}
    rows = pairs.assign(**read_off, named=kinds)
    for after, first in (("after refusing", found.refuse), ("after answering", found.respond)):
        responses = respond(chat, pairs, first_tokens=first.tolist(), **responding)
        rows[[after, f"response {after}"]] = responses[["outcome", "response"]].to_numpy()
    judged = rows[["after refusing", "after answering"]].ne("not judged").all(axis=1)
    rows = rows[judged.groupby(rows["pair"]).transform("all")].sort_values(["harmful", "pair"], ascending=[False, True])
    must, todo = "at least two pairs must be left", "Pass more pairs, or another judge."
    require(len(rows) >= 4, name, must, len(rows) // 2, todo)
    return ForcedResponses(tokens.kind, rows.reset_index(drop=True))


def _scores(rows: pd.DataFrame, refused: pd.Series, n_draws: int, seed: int) -> dict[str, float]:
    """Refusal rates of prompts and twins with Wilson intervals, and F1 with a bootstrap interval over pairs."""
    own, twin = (refused[rows["harmful"] == side].to_numpy() for side in (True, False))
    found: dict[str, float] = {}
    for name, side in (("refused", own), ("twins refused", twin)):
        low, high = wilson(int(side.sum()), len(side))
        found |= {name: float(side.mean()), f"{name} low": low, f"{name} high": high}
    strata = torch.zeros(len(own), dtype=torch.long)
    weights = torch.cat([torch.ones(1, len(own), dtype=torch.float64), bootstrap_counts(strata, n_draws, seed)])
    f1 = f1_scores(weights, torch.tensor(own), torch.tensor(twin))
    ends = dict(zip(("F1 low", "F1 high"), map(float, percentile_interval(f1[1:])), strict=True))
    return {**found, "F1": float(f1[0]), **ends, "pairs": len(own)}


def f1_scores(
    weights: Float[Tensor, "draw pair"], refused: Bool[Tensor, " pair"], twin_refused: Bool[Tensor, " pair"]
) -> Float[Tensor, " draw"]:
    """F1 of refusing the first prompt of each pair and not its twin, for every weighting of the pairs."""
    hits, false_alarms = weights @ refused.double(), weights @ twin_refused.double()
    return 2 * hits / (hits + false_alarms + weights.sum(1))
