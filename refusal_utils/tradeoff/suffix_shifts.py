"""How far a suffix moves a prompt along refusal directions, and whether that explains what it does to the response.

This measures given suffixes. It does not search for any.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import torch
from torch import Tensor

from ..checks import invalid, require
from ..directions import DirectionSet
from ..model.capture import capture_activations
from ..model.chat_model import ChatModel
from ..plotting.look import LOOK, TITLES, heatmap
from ..steering.conditions import UNSTEERED
from ..steering.first_tokens import refusal_scores

PREDICTORS = ("connectivity", "push", "shift")
PAIR = ["id", "suffix_id"]
SMALLEST_SHIFT = 1e-8
PERFECT = 1e-4  # a model that predicts every outcome this well has no finite coefficients, or nothing left to test


@dataclass(frozen=True, eq=False)
class SuffixShifts:
    """What suffixes do to the states of prompts, along every direction.

    `rows`: one per pair and direction, with the columns of the pairs, direction, and in units of the residual stream:
    `connectivity`: the prompt's state along the direction; `cosine`: the same over the norm of the state;
    `push`: how much smaller this is with the suffix, so that a positive push leads away from refusal;
    `shift`: the length of the rest of the change, orthogonal to the direction;
    `ratio`: push over shift; `push in gaps`: push over the gap of the direction.
    With tokens, also the refusal `score` of the first token without the suffix and its `change` by the suffix.
    """

    rows: pd.DataFrame = field(repr=False)

    def table(self) -> pd.DataFrame:
        """Means over the pairs by direction and kind of suffix, of connectivity, push, shift, ratio, change."""
        columns = ["connectivity", "push", "shift", "ratio", "push in gaps", "change"]
        by = ["direction", "suffix_kind"]
        return self.rows.groupby(by, sort=False)[[name for name in columns if name in self.rows]].mean()

    def regression(
        self,
        direction: str,
        outcome: str = "change",
        *,
        predictors: Sequence[str] = PREDICTORS,
        interactions: bool = False,
        clusters: Sequence[str] = ("id", "suffix_id"),
    ) -> pd.DataFrame:
        """Coefficients per standard deviation of each predictor alone and of all together, with 95 % intervals.

        Rows (model, predictor), columns coefficient, low, high, p. A column of two values (a suffix succeeds or not) is
        fitted by logistic regression, any other by least squares. The intervals allow for outcomes that depend on each
        other within the `clusters`, at most two columns; with few clusters they follow Student's t. With
        `interactions`, the products of predictors are added to the joint model. NaN if an outcome is perfectly
        predicted, or unknown.

        Raises `ValueError` for an unknown column or direction, and for a constant outcome or predictor. Needs the
        extra `regression` (statsmodels). The source has random intercepts for prompts and suffixes instead.
        """
        rows = self.rows[self.rows["direction"] == direction]
        must, todo = "direction, outcome, predictors and clusters must be among the rows", "Check the spelling."
        missing = [name for name in (outcome, *predictors, *clusters) if name not in self.rows]
        missing += [] if len(rows) else [direction]
        require(not missing, "regression", must, ", ".join(missing[:1]), todo)
        values = rows[[outcome, *predictors]].astype(float)
        constant = [name for name in values.dropna(axis=1, how="all") if values[name].nunique() < 2]
        require(not constant, "regression", "values must vary", f"one value of {constant[:1]}", "Leave it out.")
        scaled = (values[[*predictors]] - values[[*predictors]].mean()) / values[[*predictors]].std()
        groups = np.stack([pd.factorize(rows[name])[0] for name in clusters], axis=1)
        joint = scaled.copy()
        for first, second in combinations(predictors, 2) if interactions else ():
            joint[f"{first} x {second}"] = scaled[first] * scaled[second]
        models = {name: scaled[[name]] for name in predictors} | {"joint": joint}
        fits = {name: _fit(values[outcome], given, groups) for name, given in models.items()}
        return pd.concat(fits, names=["model", "predictor"])

    def regressions(self, outcome: str = "change") -> "SuffixRegressions":
        """The `regression` of every direction."""
        found = {str(name): self.regression(str(name), outcome) for name in self.rows["direction"].unique()}
        return SuffixRegressions(pd.concat(found, names=["direction"]))

    def by_suffix(self, direction: str) -> pd.DataFrame:
        """Means over the prompts, along one direction, of push in gaps, shift and change: a row per suffix, by kind."""
        rows = self.rows[self.rows["direction"] == direction]
        columns = [name for name in ("push in gaps", "shift", "change") if name in rows]
        return rows.groupby(["suffix_kind", "suffix_id"], sort=False)[columns].mean()

    def figure(self, *, title: str) -> go.Figure:
        """A map of the mean push in gaps, direction by suffix: positive leads away from refusal."""
        pushes = self.rows.pivot_table(index="direction", columns="suffix_id", values="push in gaps", sort=False)
        most = float(pushes.abs().max().max())
        value = "push away from refusal, in gaps"
        return heatmap(pushes.rename_axis(columns="suffix"), title=title, value=value, limits=(-most, most))


@dataclass(frozen=True, eq=False)
class SuffixRegressions:
    """The regressions of all directions: rows (direction, model, predictor), columns coefficient, low, high and p."""

    fits: pd.DataFrame = field(repr=False)

    def table(self) -> pd.DataFrame:
        """The fits."""
        return self.fits

    def figure(self, *, title: str) -> go.Figure:
        """The coefficients of the joint models with their intervals: a panel per predictor."""
        joint = self.fits.xs("joint", level="model").rename(index=TITLES, level="direction").reset_index()
        ends = {"error_x": joint["high"] - joint["coefficient"], "error_x_minus": joint["coefficient"] - joint["low"]}
        given: dict[str, Any] = {"x": "coefficient", "y": "direction", "facet_col": "predictor", **ends}
        figure = px.scatter(joint, title=title, **given, **LOOK).update_yaxes(autorange="reversed")
        figure.for_each_annotation(lambda note: note.update(text=note.text.partition("=")[2]))
        return figure.add_vline(0, line_dash="dot").update_traces(error_x_thickness=1.2)


def suffix_shifts(
    chat: ChatModel,
    pairs: pd.DataFrame,
    directions: DirectionSet,
    *,
    tokens: Sequence[int] | None = None,
    cache_dir: str | Path | None = None,
) -> SuffixShifts:
    """The shifts of all `pairs` (columns id, text, suffix_id, suffix, suffix_kind) along all `directions`.

    States are read where the directions were, or at the decision position. A suffix follows the prompt after a blank.
    With `tokens` (ids that refusals begin with) the scores are measured too, NaN if there are none; other columns of
    `pairs`, such as whether the suffix succeeded, are kept. Raises `ValueError` for missing columns and for directions
    of another hook than `resid_pre`. Source: 2510.22014, definitions 4 to 6; they take the dot product with the raw
    difference in means: multiply by its gap.
    """
    missing = [name for name in (*PAIR, "text", "suffix", "suffix_kind") if name not in pairs]
    require(not missing, "suffix_shifts", "pairs need their columns", f"no {missing[:1]}", "Use with_suffixes.")
    place, joined = directions.provenance, pairs["text"] + " " + pairs["suffix"]
    must = "directions must have been read at resid_pre"
    require(place.hook == "resid_pre", "suffix_shifts", must, place.hook, "Read them there.")
    texts = list(dict.fromkeys([*pairs["text"], *joined]))
    pos = chat.decision_pos if place.pos is None else place.pos
    how: dict[str, Any] = {"layers": [place.layer], "positions": [pos], "cache_dir": cache_dir}
    states = capture_activations(chat, texts, **how).at(place.layer, pos).double()
    at = {text: number for number, text in enumerate(texts)}
    base, moved = (states[[at[text] for text in each]] for each in (pairs["text"], joined))
    if tokens is not None:
        unknown = torch.full((len(texts),), float("nan"))
        scores = refusal_scores(chat, texts, [UNSTEERED], torch.tensor(list(tokens)))[0] if len(tokens) else unknown
        before, after = (scores[[at[text] for text in each]].numpy() for each in (pairs["text"], joined))
        pairs = pairs.assign(score=before, change=after - before)
    parts = [
        pairs.assign(direction=name, **_statistics(base, moved, vector.double(), directions.gap(name)))
        for name, vector in directions.items()
    ]
    return SuffixShifts(pd.concat(parts, ignore_index=True))


def _statistics(base: Tensor, moved: Tensor, direction: Tensor, gap: float) -> dict[str, np.ndarray]:
    connectivity, along = base @ direction, (moved - base) @ direction
    shift = ((moved - base) - along[:, None] * direction).norm(dim=-1)
    found = {
        "connectivity": connectivity,
        "cosine": connectivity / base.norm(dim=-1),
        "push": -along,
        "shift": shift,
        "ratio": -along / shift.clamp(min=SMALLEST_SHIFT),
        "push in gaps": -along / gap,
    }
    return {name: values.numpy() for name, values in found.items()}


def _fit(outcome: pd.Series, predictors: pd.DataFrame, groups: np.ndarray) -> pd.DataFrame:
    try:
        import statsmodels.api as sm
    except ImportError as error:
        must = "the package statsmodels is needed for regressions"
        raise invalid("regression", must, "none", "Run `pip install statsmodels`.") from error
    if outcome.isna().all():
        return pd.DataFrame(float("nan"), list(predictors), ["coefficient", "low", "high", "p"])
    is_binary = outcome.nunique() == 2
    family = sm.families.Binomial() if is_binary else sm.families.Gaussian()
    values = (outcome == outcome.max()).astype(float) if is_binary else outcome
    how: dict[str, Any] = {"cov_type": "cluster", "cov_kwds": {"groups": groups.squeeze()}, "use_t": True}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # that outcomes are perfectly predicted, which the next lines find
        fit = sm.GLM(values, sm.add_constant(predictors), family=family).fit(**how)
        is_perfect = bool((fit.fittedvalues - values).abs().max() < PERFECT)
        low, high = fit.conf_int().loc[list(predictors)].to_numpy().T
    found = {"coefficient": fit.params, "low": low, "high": high, "p": fit.pvalues}
    table = pd.DataFrame({name: each[-len(low) :] for name, each in found.items()}, index=list(predictors))
    return table * float("nan") if is_perfect else table
