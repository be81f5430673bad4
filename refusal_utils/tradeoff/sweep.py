"""A sweep: the judged responses of a controlled set under directions at several strengths.

The same code labels the controlled set and runs the sweep, so strength zero reproduces the labels exactly.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from ..checks import require
from ..directions.direction_set import DirectionSet
from ..model.artifacts import load_rows, model_notes, require_same_model, save_rows
from ..model.chat_model import ChatModel
from ..steering.conditions import Condition, steering_condition
from ..steering.responses import NOT_JUDGED, judged, respond
from .outcomes import Outcomes
from .rates import STEERED, Correct, rate_table

Strengths = Sequence[float] | Mapping[str, Sequence[float]]
S = TypeVar("S", bound="Sweep")


@dataclass(frozen=True, eq=False)
class Sweep:
    """Judged responses, one row each, and notes on what produced them.

    `rows` has the columns of `respond`: those of the prompts, direction, coefficient, gaps, response, outcome and more.
    `notes` are empty for a sweep that was just run; those of a file record its model, layer, pos and draw.
    """

    rows: pd.DataFrame = field(repr=False)
    notes: dict[str, Any] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """RR and ORR of every direction (rows) at every strength in gaps (columns), and how many were not judged."""
        rates, names = self.rates(), self.rows["direction"].unique()
        unjudged = rates[NOT_JUDGED].groupby("direction").sum()
        table = rates[["RR", "ORR"]].unstack("gaps").reindex(names)
        table[NOT_JUDGED, "all"] = unjudged
        return table

    @property
    def refusals(self) -> pd.DataFrame:
        """The rows of refused prompts."""
        return self.rows[self.rows["outcome"] == "refused"]

    def of_refusals(self: S) -> S:
        """The same with the rows of refused prompts alone."""
        return replace(self, rows=self.refusals)

    def of_directions(self: S, names: Iterable[str]) -> S:
        """The same with the rows of these directions alone."""
        return replace(self, rows=self.rows[self.rows["direction"].isin(list(names))])

    def rates(self, by: str | Sequence[str] = STEERED, correct: Correct | None = None) -> pd.DataFrame:
        """The refusal rates of every point, as `rate_table` gives them."""
        return rate_table(self.rows, by, correct)

    def outcomes(self, levels: Mapping[str, Sequence[float]], directions: Iterable[str] | None = None) -> Outcomes:
        """The outcomes at the strengths `levels` in gaps, for all its directions or some; see `Outcomes.from_rows`."""
        return Outcomes.from_rows(self.rows, {name: levels[name] for name in directions or levels})

    def refused(self, by: str | Sequence[str] = "direction") -> pd.Series:
        """The share of responses refused, over harmful and benign prompts alike, in the order of the rows."""
        keys = [by] if isinstance(by, str) else list(by)
        rows = judged(self.rows)
        return rows.assign(refused=rows["outcome"] == "refused").groupby(keys, sort=False)["refused"].mean()

    def matched(self) -> pd.DataFrame:
        """Strength in gaps, refusal rate and number not judged by direction, for a sweep at one strength of each."""
        rows = self.rows.assign(unjudged=self.rows["outcome"] == NOT_JUDGED).groupby("direction", sort=False)
        return pd.DataFrame(
            {"gaps": rows["gaps"].first(), "refused": self.refused(), NOT_JUDGED: rows["unjudged"].sum()}
        )

    def save(self, path: str | Path, chat: ChatModel, **notes: Any) -> Path:
        """Write the rows with `notes` and those of the model, and return the path. Raises as `save_rows` does."""
        return save_rows(path, self.rows, {**model_notes(chat), **notes})

    @classmethod
    def load(cls, path: str | Path, chat: ChatModel | None = None) -> "Sweep":
        """The sweep that `save` wrote. Raises `ValueError` for a missing or damaged file, or another model's."""
        rows, notes = load_rows(path)
        if chat is not None:
            require_same_model("Sweep.load", notes, chat)
        return cls(rows, notes)


def sweep_conditions(
    directions: DirectionSet,
    *,
    gaps: Strengths | None = None,
    coefficients: Strengths | None = None,
    **options: Any,
) -> list[Condition]:
    """The conditions of a sweep: directions at their strengths, given in exactly one of the two units.

    Strengths are the same for all directions, or a mapping from the directions to sweep to the strengths of each.
    `options` are those of `steering_condition`. Raises `ValueError` for a direction without strengths.
    """
    unit = "coefficient" if coefficients is not None else "gaps"
    given = coefficients if coefficients is not None else gaps or {}
    own = given if isinstance(given, Mapping) else dict.fromkeys(directions, given)
    bare = [name for name in own or directions if not len(own.get(name, ()))]
    must = "every direction needs strengths"
    require(not bare, "sweep_conditions", must, f"none for {', '.join(bare)}", "Pass some.")
    return [
        steering_condition(directions, name, **{unit: strength, **options}) for name in own for strength in own[name]
    ]


def sweep(chat: ChatModel, controlled: pd.DataFrame, conditions: Sequence[Condition], **options: Any) -> Sweep:
    """The judged responses of a controlled set under `conditions`; `options` are those of `respond`."""
    return Sweep(respond(chat, controlled, conditions, **options))
