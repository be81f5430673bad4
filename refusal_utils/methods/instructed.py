"""Refusals that the system prompt orders: their direction, its cosines with others, and what ablating one leaves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import require_columns
from ..directions import DirectionSet, Provenance
from ..geometry.gram import MIN_PROMPTS, States, contrasts
from ..geometry.uncertainty import cosine_intervals, reliability
from ..model.artifacts import model_notes
from ..model.capture import capture_activations
from ..model.chat_model import ChatModel
from ..model.system_prompts import IN_THE_USERS_TURN, SYSTEM_ROLE, by_system_prompt, has_system_role
from ..plotting.look import BLUE, WIDTH, label
from ..prompts.instructed import load_instructed
from ..stats import bootstrap_counts, percentile_interval, wilson
from ..steering.conditions import Condition
from ..steering.responses import NOT_JUDGED, judged, respond

NAME = "instructed"
CHANGE = ["change", "change low", "change high"]


@dataclass(frozen=True, eq=False)
class InstructedRefusals:
    """The states of questions off and on the topic of their system prompt, pair by pair; see `read_instructed`.

    `given`: how the system prompts reach the model, in words.
    """

    off_topic: Float[Tensor, "prompt d_model"] = field(repr=False)
    on_topic: Float[Tensor, "prompt d_model"] = field(repr=False)
    provenance: Provenance
    given: str

    @property
    def direction(self) -> DirectionSet:
        """The difference in means, off minus on topic, called *instructed*."""
        return DirectionSet.from_states({NAME: self.off_topic}, self.on_topic, self.provenance)

    def cosines(
        self, refused: States, answered: Float[Tensor, "answered_prompt d_model"], n_draws: int = 1000, seed: int = 0
    ) -> pd.DataFrame:
        """By category: the cosine of its direction with the instructed one, and the same corrected for sampling noise.

        Columns cosine, corrected, low, high (95 %, over prompts; NaN without reliability) and reliability; the last
        row is that of the instructed direction itself. `refused` and `answered` are states at the same place. Raises
        `ValueError` as `contrasts` does.
        """
        pairs = self.off_topic - self.on_topic  # both under one system prompt, which cancels
        against = dict.fromkeys(refused, answered) | {NAME: torch.zeros(MIN_PROMPTS, pairs.shape[1])}
        sample = contrasts({**refused, NAME: pairs}, against)
        found = cosine_intervals(sample, n_draws, seed)
        columns = {"cosine": found.raw, "corrected": found.corrected, "low": found.low, "high": found.high}
        table = pd.DataFrame({name: values[-1].numpy() for name, values in columns.items()}, list(sample.categories))
        return table.assign(reliability=reliability(sample).float().numpy()).rename_axis("category")


@dataclass(frozen=True, eq=False)
class InstructedEffects:
    """Judged responses to groups of prompts under several conditions; see `instructed_effects`.

    `rows`: columns id, outcome, condition and group. The first condition is the one that others are compared with.
    """

    rows: pd.DataFrame = field(repr=False)

    def table(self, n_draws: int = 1000, seed: int = 0) -> pd.DataFrame:
        """By condition and group: the share refused with its Wilson interval, n, not judged, and the change.

        *change* is the share refused minus that under the first condition, with its 95 % bootstrap interval over
        prompts, the same ones under both.
        """
        keys, first = ["condition", "group"], self.rows["condition"].iloc[0]
        parts = {}
        for group, own in self.rows.groupby("group", sort=False):
            refused = judged(own).assign(refused=lambda rows: rows["outcome"].eq("refused").astype(float))
            wide = refused.pivot(index="id", columns="condition", values="refused")
            changed = wide.sub(wide[first], axis=0)
            for name, rows in own.groupby("condition", sort=False):
                parts[name, group] = {**_rate(rows["outcome"]), **_change(changed[name].dropna(), n_draws, seed)}
        order = pd.MultiIndex.from_frame(self.rows[keys].drop_duplicates())
        return pd.DataFrame.from_dict(parts, orient="index").rename_axis(keys).loc[order]

    def figure(self, *, title: str) -> go.Figure:
        """The change of the share refused under each condition but the first, a panel per group."""
        table = self.table().reset_index()
        shown = table[table["condition"] != table["condition"].iloc[0]]
        shown = shown.assign(ablated=shown["condition"].map(label), above=shown["change high"] - shown["change"])
        ends = {"error_x": "above", "error_x_minus": shown["change"] - shown["change low"]}
        look: dict[str, Any] = {"template": "refusal", "width": WIDTH, "height": 200 + 26 * shown["ablated"].nunique()}
        axes = {"change": "change of the share refused", "ablated": ""}
        figure = px.scatter(shown, x="change", y="ablated", facet_col="group", title=title, labels=axes, **ends, **look)
        figure.for_each_annotation(lambda facet: facet.update(text=facet.text.removeprefix("group=")))
        figure.update_traces(marker={"size": 9, "color": BLUE}, error_x_thickness=1.2)
        figure.add_vline(x=0, line={"dash": "dash", "color": "#444"})
        return figure.update_yaxes(autorange="reversed")


def read_instructed(
    chat: ChatModel, prompts: pd.DataFrame | None = None, *, cache_dir: str | Path | None = None
) -> InstructedRefusals:
    """The states at the model's decision place of questions off and on the topic of their system prompt.

    `prompts`: a frame like that of `load_instructed`, by default its train split. Raises `ValueError` as
    `capture_activations` does.
    """
    prompts = load_instructed(split="train") if prompts is None else prompts
    require_columns("read_instructed", prompts, "system", "text", "pair_id", "on_topic")
    layer, pos = chat.decision_layer, chat.decision_pos
    states, on_topic = [], []
    for other, own in by_system_prompt(chat, prompts.sort_values("pair_id", kind="stable")):
        captured = capture_activations(other, list(own["text"]), layers=[layer], positions=[pos], cache_dir=cache_dir)
        states.append(captured.at(layer, pos))
        on_topic += list(own["on_topic"])
    rows, is_on = torch.cat(states), torch.tensor(on_topic)
    given = SYSTEM_ROLE if has_system_role(chat) else IN_THE_USERS_TURN
    place = Provenance(layer, pos, model=model_notes(chat), settings={"system prompts": given})
    return InstructedRefusals(rows[~is_on], rows[is_on], place, given)


def instructed_effects(
    chat: ChatModel,
    conditions: Mapping[str, Condition],
    prompts: pd.DataFrame,
    others: Mapping[str, pd.DataFrame] | None = None,
    **options: Any,
) -> InstructedEffects:
    """The judged responses to each group of prompts under each of `conditions`.

    Groups: off topic and on topic of `prompts` (`load_instructed`), and `others` (frames with id and text), which are
    asked without these system prompts. `options` are those of `respond`.
    """
    require_columns("instructed_effects", prompts, "id", "system", "text", "on_topic")
    asked = [
        (model, own, own["on_topic"].map({True: "on topic", False: "off topic"}))
        for model, own in by_system_prompt(chat, prompts)
    ]
    asked += [(chat, own, pd.Series(group, own.index)) for group, own in (others or {}).items()]
    found = []
    for model, own, group in asked:
        plain = own[["id", "text"]].assign(group=group)
        rows = respond(model, plain, list(conditions.values()), **options)
        found.append(rows.assign(condition=[name for name in conditions for _ in range(len(own))]))
    return InstructedEffects(pd.concat(found, ignore_index=True))


def _rate(outcomes: pd.Series) -> dict[str, float]:
    counted = judged(outcomes.to_frame("outcome"))["outcome"]
    n, refused = len(counted), int((counted == "refused").sum())
    low, high = wilson(refused, n) if n else (float("nan"),) * 2
    share = refused / n if n else float("nan")
    return {"refused": share, "low": low, "high": high, "n": n, NOT_JUDGED: len(outcomes) - n}


def _change(differences: pd.Series, n_draws: int, seed: int) -> dict[str, float]:
    """The mean of the differences of single prompts, and its bootstrap interval; NaN without any."""
    if differences.empty:
        return dict.fromkeys(CHANGE, float("nan"))
    each = torch.tensor(differences.to_numpy())
    counts = bootstrap_counts(torch.zeros(len(each), dtype=torch.long), n_draws, seed)
    low, high = percentile_interval(counts @ each / len(each))
    return dict(zip(CHANGE, (float(each.mean()), float(low), float(high)), strict=True))
