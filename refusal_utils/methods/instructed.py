"""Refusals that the system prompt orders: their direction, its cosines with others, and what ablating one leaves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..directions import DirectionSet, Provenance
from ..geometry.gram import MIN_PROMPTS, States, contrasts
from ..geometry.uncertainty import cosine_intervals, reliability
from ..model.artifacts import model_notes
from ..model.capture import capture_activations
from ..model.chat_model import ChatModel
from ..model.system_prompts import IN_THE_USERS_TURN, SYSTEM_ROLE, by_system_prompt, has_system_role
from ..prompts.instructed import load_instructed
from ..stats import wilson
from ..steering.conditions import Condition
from ..steering.responses import NOT_JUDGED, judged, respond

NAME = "instructed"


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


def read_instructed(
    chat: ChatModel, prompts: pd.DataFrame | None = None, *, cache_dir: str | Path | None = None
) -> InstructedRefusals:
    """The states at the model's decision place of questions off and on the topic of their system prompt.

    `prompts`: a frame like that of `load_instructed`, by default its train split. Raises `ValueError` as
    `capture_activations` does.
    """
    prompts = load_instructed(split="train") if prompts is None else prompts
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
    others: Mapping[str, pd.DataFrame],
    **options: Any,
) -> pd.DataFrame:
    """The share refused of each group of prompts under each of `conditions`: columns refused, low, high, n, not judged.

    Rows: (condition, group). Groups: off topic and on topic of `prompts` (`load_instructed`), and `others` (frames
    with id and text), which are asked without these system prompts. Intervals are Wilson's. `options` are those of
    `respond`.
    """
    asked = [
        (model, own, own["on_topic"].map({True: "on topic", False: "off topic"}))
        for model, own in by_system_prompt(chat, prompts)
    ]
    asked += [(chat, own, pd.Series(group, own.index)) for group, own in others.items()]
    found = []
    for model, own, group in asked:
        plain = own[["id", "text"]].assign(group=group)
        rows = respond(model, plain, list(conditions.values()), **options)
        found.append(rows.assign(condition=[name for name in conditions for _ in range(len(own))]))
    rows = pd.concat(found)
    return pd.DataFrame(
        {key: _rate(own["outcome"]) for key, own in rows.groupby(["condition", "group"], sort=False)}
    ).T.rename_axis(["condition", "group"])


def _rate(outcomes: pd.Series) -> pd.Series:
    counted = judged(outcomes.to_frame("outcome"))["outcome"]
    n, refused = len(counted), int((counted == "refused").sum())
    low, high = wilson(refused, n) if n else (float("nan"),) * 2
    share = refused / n if n else float("nan")
    return pd.Series({"refused": share, "low": low, "high": high, "n": n, NOT_JUDGED: len(outcomes) - n})
