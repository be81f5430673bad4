"""Core and tail clamped apart: which latents decide whether a model refuses, and which decide how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from torch import Tensor

from ..checks import require
from ..model.chat_model import ChatModel
from ..plotting.look import HEIGHT, WIDTH
from ..stats import percentile_interval
from ..steering import UNSTEERED, Condition, generate
from ..steering.responses import judge_rows
from .firing import Firing
from .overlap import Overlap
from .sae import SparseAutoencoder

NOTHING, CORE, TAIL = "nothing", "core", "tail"
LIST, RANDOM_LIST, RANDOM = "whole list", "random list", "random"
ONCE = "{} once"  # a part set to 0, not beyond
OUTCOMES = {"refused": "whether: share refused", "own voice": "how: share of refusals in the category's own voice"}


@dataclass(frozen=True, eq=False)
class PartEffects:
    """Judged responses with parts of the latents clamped.

    `rows`: id, category, part (what is clamped), refused, and `own voice`, whether a refusal sounds like those that
    the unsteered model gives to the category (missing for answers).
    """

    rows: pd.DataFrame = field(repr=False)

    def table(self, n_draws: int = 1000, seed: int = 0) -> pd.DataFrame:
        """Both outcomes by part, with 95 % intervals (bootstrap of prompts)."""
        found = {}
        for part in self.rows["part"].unique():
            shares = self._shares(part, n_draws, seed)
            found[part] = dict[str, float]()
            for name, draws in shares.items():
                low, high = percentile_interval(draws[1:])
                found[part] |= {name: float(draws[0]), f"{name} low": float(low), f"{name} high": float(high)}
        return pd.DataFrame.from_dict(found, orient="index").rename_axis("part")

    def difference(self, first: str, second: str, n_draws: int = 1000, seed: int = 0) -> pd.DataFrame:
        """Each outcome under `first` minus that under `second`, with its 95 % interval over the same prompts."""
        sides = [self._shares(part, n_draws, seed) for part in (first, second)]
        rows = {}
        for name in OUTCOMES:
            draws = sides[0][name] - sides[1][name]
            low, high = percentile_interval(draws[1:])
            rows[name] = {"difference": float(draws[0]), "low": float(low), "high": float(high)}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("outcome")

    def predictions(self, n_draws: int = 1000, seed: int = 0) -> pd.DataFrame:
        """`difference` of core and tail, and whether the paper's story holds: below 0 for refused, above for own voice.

        An interval on the other side of 0 refutes it, one that contains 0 leaves it undecided.
        """
        table = self.difference(CORE, TAIL, n_draws, seed)
        signs = {"refused": -1, "own voice": 1}
        found = []
        for name, row in table.iterrows():
            low, high = sorted((signs[str(name)] * row["low"], signs[str(name)] * row["high"]))
            found.append("holds" if low > 0 else "refuted" if high < 0 else "undecided")
        return table.assign(prediction=found)

    def figure(self) -> go.Figure:
        """Both outcomes by part, with their intervals."""
        table = self.table()
        parts = [
            pd.DataFrame({"part": table.index, "outcome": shown, "share": table[name].to_numpy()}).assign(
                up=(table[f"{name} high"] - table[name]).to_numpy(),
                down=(table[name] - table[f"{name} low"]).to_numpy(),
            )
            for name, shown in OUTCOMES.items()
        ]
        title = "Core and tail clamped apart: whether the model refuses, and how"
        how: dict[str, Any] = {"title": title, "template": "refusal", "width": WIDTH, "height": HEIGHT}
        ends = {"error_y": "up", "error_y_minus": "down", "barmode": "group", "range_y": (0, 1.02)}
        figure = px.bar(pd.concat(parts), x="part", y="share", color="outcome", **ends, **how)
        return figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "title": ""})

    def _shares(self, part: str, n_draws: int, seed: int) -> dict[str, Float[Tensor, " draw"]]:
        """By outcome, the share over the prompts and over resampled ones; the same draws for every part."""
        own = self.rows[self.rows["part"] == part].sort_values("id")
        n = len(own)
        weights = np.random.default_rng(seed).multinomial(n, [1 / n] * n, n_draws)
        counts = torch.tensor(np.concatenate([np.ones((1, n)), weights]))
        refused = torch.tensor(own["refused"].to_numpy(dtype=float))
        voiced = torch.tensor((own["own voice"] == True).to_numpy(dtype=float))  # noqa: E712
        return {"refused": counts @ refused / n, "own voice": counts @ voiced / (counts @ refused)}


@dataclass(frozen=True, eq=False)
class Voices:
    """Guesses which category's refusals a text sounds like, from the unsteered model's own."""

    model: Pipeline = field(repr=False)

    @classmethod
    def of(cls, responses: pd.DataFrame, seed: int = 0) -> "Voices":
        """Trained on judged responses (columns category, response and outcome).

        Raises `ValueError` for refusals of fewer than two categories.
        """
        refusals = responses[responses["outcome"] == "refused"]
        kinds = refusals["category"].nunique()
        require(kinds > 1, "Voices.of", "refusals of two categories are needed", kinds, "Pass more responses.")
        words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"[^\s]+")
        classifier = LogisticRegression(max_iter=500, random_state=seed, class_weight="balanced")
        return cls(make_pipeline(words, classifier).fit(refusals["response"], refusals["category"]))

    def own(self, rows: pd.DataFrame) -> pd.Series:
        """By `name`, the share of refusals that sound like the category that the name ends in; NaN if it ends in none.

        `rows` are judged responses with a column `name`, such as "tail advice".
        """
        refusals = rows[rows["outcome"] == "refused"]
        wanted = refusals["name"].str.split().str[-1]
        heard = pd.Series(self.heard(list(refusals["response"])), refusals.index, dtype=object)
        own = (heard == wanted).astype(float).where(wanted.isin(self.model.classes_))
        return own.groupby(refusals["name"], sort=False).mean().rename("own voice")

    def heard(self, responses: Sequence[str]) -> list[str]:
        """The category that each text sounds like."""
        return list(self.model.predict(list(responses))) if len(responses) else []


def zeroed_parts(
    sae: SparseAutoencoder,
    overlap: Overlap,
    firing: Firing,
    states: Mapping[str, Float[Tensor, "_ d_model"]],
    least: int,
    seed: int = 0,
) -> dict[str, dict[str, Condition]]:
    """By category and part, the condition that sets the part's latents to 0, the error kept.

    *Whole list*: the category's top latents, with as many random latents as control (Joad et al. 2602.02132,
    necessity). The *core* are the latents in at least `least` lists, the *tail* those of the category's list in no
    other, and *random* as many latents as the core has, of similar firing rates, outside both. Set to 0 *once*, they
    move the category's `states` by different lengths, so the three are also removed beyond 0, in proportion to what
    they write, until all move the states as far on average as the whole list does. A part that never fires stays.
    Raises `ValueError` for an empty core.
    """
    core, rng = overlap.core(least), np.random.default_rng(seed)
    todo = "Lower least, or take longer lists."
    require(bool(core), "zeroed_parts", f"some latents must be in {least} lists", "none", todo)
    found = {}
    for name in firing.names:
        own, tail = overlap.lists[name], overlap.tail(name)
        drawn = rng.permutation(sae.n_latents)[: len(own)].tolist()
        parts = {CORE: core, TAIL: tail, RANDOM: _similar(firing, core, {*core, *tail}, seed)}
        aim = displacement(sae, own, states[name])
        moved = {part: displacement(sae, each, states[name]) for part, each in parts.items()}
        once = {LIST: (own, 1.0), RANDOM_LIST: (drawn, 1.0)}
        once |= {ONCE.format(part): (parts[part], 1.0) for part in (CORE, TAIL)}
        beyond = {part: (each, aim / moved[part] if moved[part] > 0 else 1.0) for part, each in parts.items()}
        found[name] = {NOTHING: UNSTEERED} | {
            part: Condition(f"{part} of {name}", (sae.clamp(each, share=share),), name)
            for part, (each, share) in (once | beyond).items()
        }
    return found


def displacement(sae: SparseAutoencoder, latents: Sequence[int], states: Float[Tensor, "prompt d_model"]) -> float:
    """The mean length of what some latents write at `states`: how far removing them moves a state."""
    return float((states - sae.without(states, latents)).norm(dim=-1).mean()) if latents else 0.0


def part_effects(
    chat: ChatModel,
    prompts: pd.DataFrame,
    conditions: Mapping[str, Mapping[str, Condition]],
    voices: Voices,
    **options: Any,
) -> PartEffects:
    """The judged responses to `prompts` (id, category, text) under every part's condition of its category.

    `options` are those of `generate`. Raises `ValueError` as it does.
    """
    parts = list(next(iter(conditions.values())))
    asked = prompts[prompts["category"].isin(list(conditions))].reset_index(drop=True)
    frames = []
    for part in parts:
        own = [conditions[category][part] for category in asked["category"]]
        said = generate(chat, list(asked["text"]), own, paired=True, **options)["response"]
        frames.append(asked.assign(response=list(said), part=part))
    judged = judge_rows(pd.concat(frames, ignore_index=True))
    refused = judged["outcome"] == "refused"
    voice = pd.Series(None, judged.index, dtype=object)
    heard = voices.heard(list(judged.loc[refused, "response"]))
    voice[refused] = [a == b for a, b in zip(heard, judged.loc[refused, "category"], strict=True)]
    rows = judged.assign(refused=refused, **{"own voice": voice})
    return PartEffects(rows)


def _similar(firing: Firing, latents: Sequence[int], taken: set[int], seed: int) -> list[int]:
    """As many other latents, each of a firing rate near that of one of `latents`."""
    fires = torch.cat([*firing.fires.values()])
    rates = fires.sum(0) / len(fires)
    rng, found = np.random.default_rng(seed), []
    for latent in latents:
        order = (rates - rates[latent]).abs().argsort(stable=True).tolist()
        near = [each for each in order if each not in taken and each not in found][:10]
        found += [int(rng.choice(near))] if near else []
    return found
