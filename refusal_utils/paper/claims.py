"""The paper's claims about one model: each with a number, its range, n, a verdict, and the setting.

The rule is the same for every measure (`Measure.verdict`) and was fixed before the suite ran on a real model. A number
agrees if its whole range lies on the claim's side of a bar, differs if it lies on the other side, and is undecided if
the range contains the bar, or the data are missing, stale, or from fewer than eleven directions. A claim agrees if all
of its measures agree, differs if at least one differs, and is undecided otherwise.

| claim | measure | bar |
|---|---|---|
| 1 | pairs of distinct directions: cosine clearly below `SAME`, and distinguishable kinds of prompt | 9 in 10 pairs |
| 2 | correlation of the cosines with the two published clusters | what 95 % of shuffled maps stay below |
| 2 | correlation with the published map | the same |
| 3 | pairs of trade-off curves that the knob test calls equivalent, within its margin | 9 in 10 pairs |
| 3 | directions that raise the overall refusal rate by at least `RISE` | 9 in 10 directions |
| 3 | random directions that do so, at strengths that the eleven were given | fewer than half |
| 4 | refusals whose text names their direction | a tenth of the way from chance to certainty |
| 4 | how minus whether: what text tells, minus what yes or no tells, each as a share of what it could | 0 |

Source of the claims: Joad et al., arXiv 2602.02132.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..model.names import BUNDLED
from .measures import AGREES, DIFFERS, RATES, UNDECIDED, Measure, Tables, measure_claims
from .setting import Setting, read_setting

CLAIMS = {
    1: "The eleven directions are distinct, not one direction.",
    2: "They form two clusters, as in the published map.",
    3: "Steering along any of them turns one shared knob.",
    4: "A direction decides how the model refuses, more than whether.",
}
CLAIMS_FILE = "claims.csv"


@dataclass(frozen=True, eq=False)
class Claims:
    """The measures of all claims on one model, and what they were measured on.

    `setting` has model, kind ("test organism" or "chat model"), layer, pos, place (who chose layer and position),
    selection and prompts, per_side (prompts on each side of a direction), judge, tokens (length of a response), dtype
    and weights (what they were dequantized from); unknown values are empty.
    """

    measures: tuple[Measure, ...] = field(repr=False)
    setting: dict[str, Any]

    def verdict(self, claim: int) -> str:
        """Agrees if all measures of the claim agree, differs if one differs, otherwise undecided."""
        found = {measure.verdict for measure in self.measures if measure.claim == claim}
        return DIFFERS if DIFFERS in found else AGREES if found == {AGREES} else UNDECIDED

    def rows(self) -> pd.DataFrame:
        """A row per measure: claim, measure, number, low, high, bar, n, unit, verdict, claim verdict, note, setting."""
        return pd.DataFrame([self._row(measure) for measure in self.measures])

    def table(self) -> pd.DataFrame:
        """One row per claim: the number, range and n of its headline measure, its verdict, the reason, the setting."""
        rows = self.rows().groupby("claim", sort=False)
        table = rows.first()[["number", "low", "high", "n", "claim verdict"]].rename(
            columns={"claim verdict": "verdict"}
        )
        table["why"] = [_reason(own) for _, own in rows]
        table["setting"] = describe_setting(self.setting)
        return table.set_axis([CLAIMS[claim] for claim in table.index], axis=0)

    def _row(self, measure: Measure) -> dict[str, Any]:
        bar = ("at least " if measure.above else "below ") + f"{measure.bar:.4g}"
        return {
            "claim": measure.claim,
            "measure": measure.name,
            **{name: getattr(measure, name) for name in ("number", "low", "high")},
            "bar": "" if pd.isna(measure.bar) else bar,
            "n": measure.n,
            "unit": measure.unit,
            "verdict": measure.verdict,
            "claim verdict": self.verdict(measure.claim),
            "note": measure.note,
            "doubt": measure.doubt,
            **self.setting,
        }


def check_claims(folder: str | Path, model: str) -> Claims:
    """The paper's claims, checked on the tables that the notebooks wrote to a model's folder; nothing else is read.

    A table that is missing, or lacks a column, makes its measures undecided, with the reason.
    """
    setting = read_setting(Path(folder), model)
    tables = Tables(Path(folder), setting)
    measured = {"model": Path(folder).name, **_setting(setting, tables.read(RATES, "judge", "max_new_tokens"))}
    return Claims(tuple(measure_claims(tables)), measured)


def describe_setting(setting: dict[str, Any]) -> str:
    """A setting in words.

    >>> describe_setting({"kind": "chat model", "layer": 12, "pos": -1, "dtype": "bfloat16"})
    'layer 12, position -1; bfloat16'
    """
    known = {name: value for name, value in setting.items() if value not in ("", None) and not pd.isna(value)}
    forms = {
        "layer": "layer {layer:.0f}, position {pos:.0f}",
        "place": "place: {place}",
        "selection": "prompts {prompts}, selected by {selection}",
        "per_side": "{per_side:.0f} a side",
        "judge": "judge {judge}",
        "tokens": "{tokens:.0f} tokens",
        "dtype": "{dtype}",
        "weights": "{weights}",
    }
    words = [form.format_map(known) for name, form in forms.items() if name in known]
    return "; ".join([*(["trained test organism"] if known.get("kind") == "test organism" else []), *words])


def _setting(setting: Setting, rates: pd.DataFrame) -> dict[str, Any]:
    notes = setting.model_notes
    first = rates.iloc[0] if len(rates) else {}
    values = {
        "layer": next(iter(setting.layers), ""),
        "pos": next(iter(setting.positions), ""),
        "place": notes.get("decision_source", ""),
        "selection": " and ".join(setting.selections),
        "prompts": Path(setting.prompts).name,
        "per_side": setting.n_prompts or "",
        "judge": first.get("judge", ""),
        "tokens": first.get("max_new_tokens", ""),
        "dtype": notes.get("dtype", ""),
        "weights": _weights(notes.get("dequantized_from")),
    }
    kind = "test organism" if setting.model == BUNDLED else "chat model"
    return {"kind": kind, **values}


def _weights(quantization: str | None) -> str:
    """What weights were dequantized from, such as `4-bit Q4_K_M, dequantized`; empty if they were never quantised."""
    bits = re.search(r"\d+", quantization or "")
    return f"{bits[0]}-bit {quantization}, dequantized" if bits else ""


def _reason(rows: pd.DataFrame) -> str:
    """What decided a claim: the measures with another verdict than agrees, or the notes of all."""
    short = rows[rows["verdict"] != AGREES]
    parts = [
        f"{row['measure']}: {row['verdict']}" + (f" ({row['doubt']})" if row["doubt"] else "")
        for _, row in short.iterrows()
    ]
    return "; ".join(parts or [note for note in rows["note"] if note])
