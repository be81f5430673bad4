"""What the refusal direction of one language does to the refusals of another, without a judge that reads either.

A judge sees refusals only in the languages that it reads. Two measures need no reader: the log odds that the response
begins as the model's refusals in that language begin, and whether its text is more like the model's responses to
prompts that should be refused than like those to their harmless twins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import torch

from ..checks import require
from ..directions import DirectionSet, Provenance, random_directions
from ..geometry.parallel import MIN_PAIRS, ParallelStates
from ..model.artifacts import model_notes
from ..model.capture import capture_activations
from ..model.chat_model import ChatModel
from ..plotting.look import LOOK, heatmap_menu
from ..plotting.points import OUTCOME_COLOURS
from ..stats import bootstrap_counts, percentile_interval
from ..steering.conditions import UNSTEERED, Condition, ablation_condition, steering_condition
from ..steering.responses import NOT_JUDGED, respond
from .language_measures import likeness_to_refusals, openings_by_language, paired_auc, scores_by_language

RANDOM = "random"  # the control: a random direction, as long as the mean gap
SEEN = ("score", "likeness")  # what no judge is needed for
MEASURES = {
    "score": "refusal score of the first token",
    "likeness": "likeness to refusals",
    "refused": "refusal rate, of the responses that are judged",
}
KINDS = {"ablated": True, "added": False}  # whether its prompts are harmful
REFUSED = {"refused": 1.0, "answered": 0.0, "broken": 0.0}  # NaN if not judged


@dataclass(frozen=True, eq=False)
class CrossLanguage:
    """Refusals of every language's prompts under every language's direction.

    `rows`: a response each, with columns language, pair_id, harmful, direction and kind ("" if unsteered), response,
    outcome (by the judge), refused (1, 0, or NaN if it is not judged), score (log odds of a refusal's first token; NaN
    if the language has no such token) and likeness (to the unsteered responses to other harmful prompts minus that to
    other twins, -1 to 1). `openings`: the tokens by language.
    """

    states: ParallelStates = field(repr=False)
    openings: Mapping[str, tuple[str, ...]]
    rows: pd.DataFrame = field(repr=False)

    def table(self, kind: str = "ablated", of: str = "score") -> pd.DataFrame:
        """The mean change of score, likeness or refusal rate: a row per direction, a column per prompts' language.

        A direction is ablated on harmful prompts and added on their twins (`kind`). It comes from other pairs than
        those it is tried on.
        """
        names = list(self.states.languages)
        return self.effects(kind, of)["change"].unstack().loc[[*names, RANDOM], names]

    def effects(self, kind: str = "ablated", of: str = "score", n_draws: int = 1000) -> pd.DataFrame:
        """The mean change by direction and prompts' language, its 95 % bootstrap interval over pairs, and their number.

        Pairs whose change is unknown are left out, such as those with a response that is not judged.
        """
        unsteered = self.rows[(self.rows["kind"] == "") & (self.rows["harmful"] == KINDS[kind])]
        before = unsteered.set_index(["language", "pair_id"])[of]
        changes = self.rows[self.rows["kind"] == kind].pivot(
            index=["direction", "language"], columns="pair_id", values=of
        )
        changes -= before.unstack().loc[changes.index.get_level_values("language"), changes.columns].to_numpy()
        values = torch.tensor(changes.to_numpy(dtype=float))
        known = (~values.isnan()).double()
        counts = bootstrap_counts(torch.zeros(values.shape[1], dtype=torch.long), n_draws)
        low, high = percentile_interval((counts @ values.nan_to_num().T) / (counts @ known.T))
        columns = {"change": values.nanmean(1), "low": low, "high": high, "n": known.sum(1).int()}
        return pd.DataFrame(columns, index=changes.index).rename_axis(["direction", "prompts"])

    def changes(self, n_draws: int = 1000) -> pd.DataFrame:
        """The `effects` of both kinds on all measures: index kind, of, direction, prompts."""
        parts = {(kind, of): self.effects(kind, of, n_draws) for kind in KINDS for of in MEASURES}
        return pd.concat(parts, names=["kind", "of"])

    def summary(self, of: str = "score", n_draws: int = 1000) -> pd.DataFrame:
        """By kind and whether the direction is of the prompts' own language, of another, or random: what it changes.

        The mean change, and of how many cells how many are clearly below and above 0.
        """
        rows = self.changes(n_draws).xs(of, level="of").reset_index()
        whose = (rows["direction"] == rows["prompts"]).map({True: "own", False: "other"})
        rows["direction is"] = whose.where(rows["direction"] != RANDOM, RANDOM)
        rows = rows.assign(below=rows["high"] < 0, above=rows["low"] > 0)
        groups = rows.groupby(["kind", "direction is"], sort=False)
        return groups.agg(
            change=("change", "mean"), below=("below", "sum"), above=("above", "sum"), cells=("change", "size")
        )

    def languages(self, n_draws: int = 1000) -> pd.DataFrame:
        """By language: what can be seen of refusals in the unsteered responses to harmful prompts and to their twins.

        The tokens, and how well score and likeness tell harmful prompts from twins: their AUC (near 0.5 the model does
        not refuse in that language, or not visibly) with its 95 % bootstrap interval over pairs.
        """
        found: dict[str, dict[str, Any]] = {}
        for code in self.states.languages:
            own = self.rows[(self.rows["language"] == code) & (self.rows["kind"] == "")]
            found[code] = {"opens with": ", ".join(map(repr, self.openings[code]))}
            for of in SEEN:
                sides = own.pivot(index="pair_id", columns="harmful", values=of).to_numpy(dtype=float)
                found[code] |= dict(
                    zip((f"AUC of {of}", f"{of} low", f"{of} high"), paired_auc(sides, n_draws), strict=True)
                )
        return pd.DataFrame.from_dict(found, orient="index").rename_axis("language")

    def outcomes(self) -> pd.DataFrame:
        """How many unsteered responses have which outcome by the judge, by language and side (harmful or twin)."""
        own = self.rows[self.rows["kind"] == ""]
        sides = own["harmful"].map({True: "harmful", False: "twin"}).rename("prompts")
        counts = own.groupby(["language", sides, "outcome"], sort=False).size().unstack(fill_value=0)
        return counts.reindex(columns=[*REFUSED, NOT_JUDGED], fill_value=0)

    def outcome_figure(self, *, title: str) -> go.Figure:
        """A bar per language and side with the shares of the judge's outcomes."""
        counts = self.outcomes()
        shares = counts.div(counts.sum(axis=1), axis=0).rename_axis(columns="outcome").stack().rename("share")
        given: dict[str, Any] = {"x": "language", "y": "share", "color": "outcome", "facet_col": "prompts"}
        look = {**LOOK, "color_discrete_map": OUTCOME_COLOURS, "labels": {"share": "share of responses"}}
        figure = px.bar(shares.reset_index(), title=title, **given, **look)
        return figure.for_each_annotation(lambda note: note.update(text=note.text.partition("=")[2]))

    def figure(self, *, title: str) -> go.Figure:
        """Maps of the changes with their intervals, and of the cosines, chosen in a menu."""
        panels, notes, names = {}, {}, list(self.states.languages)
        for (kind, of), rows in self.changes().groupby(level=["kind", "of"], sort=False):
            name = f"change of the {MEASURES[of]}, direction {kind}"
            maps = rows.droplevel(["kind", "of"]).unstack().loc[[*names, RANDOM]]
            panels[name] = maps["change"][names].rename_axis("direction of", axis=0)
            low, high = (maps[end][names].map("{:.2f}".format) for end in ("low", "high"))
            notes[name] = low + " to " + high
        panels["cosine across halves"] = self.states.across_halves()
        figure = heatmap_menu(panels, notes, title=title).update_xaxes(title="prompts in")
        return figure.update_yaxes(title="direction of", autorange="reversed")


def cross_language(
    chat: ChatModel,
    prompts: pd.DataFrame,
    *,
    tokens: Mapping[str, Sequence[int]] | None = None,
    gaps: float = 1.0,
    max_new_tokens: int = 24,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    progress: bool = False,
) -> CrossLanguage:
    """The effect of every language's direction on every language's prompts, at the decision place.

    `prompts`: those of `load_languages`. Directions are differences in means of every second pair and are tried on the
    others, and the reverse. They are ablated everywhere on harmful prompts, and added `gaps` times at the decision
    layer on their twins. `tokens`: the ids that refusals begin with, by language; by default those that open at least
    two of the responses to harmful prompts, and more than to twins. Raises `ValueError` for fewer than 8 pairs, and for
    prompts that are not parallel. Source: Wang et al. 2505.17306, who translate and judge responses; their released
    runs ablate and then add.
    """
    languages, n_pairs = _languages_and_pairs(prompts)
    asking: dict[str, Any] = {"max_new_tokens": max_new_tokens, "cache_dir": cache_dir, "progress": progress}
    states = _states(chat, prompts, languages, cache_dir)
    before = respond(chat, prompts, **asking).assign(direction="", kind="")
    ids = openings_by_language(chat, before) if tokens is None else tokens
    place = Provenance(chat.decision_layer, chat.decision_pos, model=model_notes(chat))
    parts = [before.assign(score=scores_by_language(chat, before, [UNSTEERED], ids)[0])]
    fold = prompts.groupby(["language", "harmful"]).cumcount() % 2
    for number in range(2):
        pairs = torch.arange(n_pairs)
        directions = _with_control(states.directions(place, pairs[pairs % 2 != number]), seed)
        for kind, harmful in KINDS.items():
            conditions = _conditions(directions, kind, gaps)
            asked = prompts[(fold == number) & (prompts["harmful"] == harmful)]
            rows = respond(chat, asked, conditions, **asking).assign(kind=kind)
            parts.append(rows.assign(score=scores_by_language(chat, asked, conditions, ids).ravel()))
    rows = pd.concat(parts, ignore_index=True)
    words = {code: tuple(str(chat.tokenizer.decode([each])) for each in ids.get(code, ())) for code in languages}
    rows = rows.assign(refused=rows["outcome"].map(REFUSED), likeness=likeness_to_refusals(rows))
    return CrossLanguage(states, words, rows)


def _languages_and_pairs(prompts: pd.DataFrame) -> tuple[tuple[str, ...], int]:
    """(the languages, the number of pairs) of parallel prompts in the order of `load_languages`."""
    languages = tuple(dict.fromkeys(prompts["language"]))
    n_pairs = int(prompts["harmful"].sum()) // max(1, len(languages))
    sides = [(code, harmful) for code in languages for harmful in (True, False) for _ in range(n_pairs)]
    pairs = [*prompts["pair_id"][:n_pairs]] * (2 * len(languages))
    in_order = (
        list(zip(prompts["language"], prompts["harmful"], strict=True)) == sides and list(prompts["pair_id"]) == pairs
    )
    must, todo = "prompts must be parallel and in the order of load_languages", "Load them with load_languages."
    require(in_order, "cross_language", must, f"{len(prompts)} rows that are not", todo)
    must = f"there must be at least {2 * MIN_PAIRS} pairs, half for the directions"
    require(n_pairs >= 2 * MIN_PAIRS, "cross_language", must, n_pairs, "Add pairs.")
    return languages, n_pairs


def _states(
    chat: ChatModel, prompts: pd.DataFrame, languages: tuple[str, ...], cache_dir: str | Path | None
) -> ParallelStates:
    values = capture_activations(chat, list(prompts["text"]), layers=[chat.decision_layer], cache_dir=cache_dir).values
    refused, answered = values[:, 0, 0].float().unflatten(0, (len(languages), 2, -1)).unbind(1)
    return ParallelStates(languages, refused, answered)


def _with_control(directions: DirectionSet, seed: int) -> DirectionSet:
    control = random_directions(1, directions.vectors.shape[1], seed=seed)
    names, gaps = (*directions.names, RANDOM), torch.cat([directions.gaps, directions.gaps.mean()[None]])
    return DirectionSet(names, torch.cat([directions.vectors, control]), gaps, directions.provenance)


def _conditions(directions: DirectionSet, kind: str, gaps: float) -> list[Condition]:
    if kind == "ablated":
        return [ablation_condition(directions, name) for name in directions]
    return [steering_condition(directions, name, gaps=gaps) for name in directions]
