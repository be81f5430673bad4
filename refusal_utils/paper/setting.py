"""What numbers were measured on, ours and the paper's, and why the ones may say nothing about the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..model.artifacts import load_tensors
from ..prompts.draws import draw_digest
from .tables import GEMMA as GEMMA_MODEL
from .tables import LLAMA as LLAMA_MODEL
from .tables import plain_name


@dataclass(frozen=True)
class Setting:
    """What numbers were measured on: a model, layers, positions and prompts, and how the prompts were chosen.

    `selections`: by label, behaviour, behaviour at random, or as published for Gemma. `over_refusal`: the reading of that category.
    `n_prompts`: of each side. `draw`: the digest of these prompts. `notes`: what else the file of directions says of the
    model and of its own draw. Empty or 0: not known.
    """

    model: str
    layers: tuple[int, ...]
    positions: tuple[int, ...]
    prompts: str
    selections: tuple[str, ...] = ()
    over_refusal: tuple[str, ...] = ()
    n_prompts: int = 0
    draw: str = ""
    notes: dict[str, Any] = field(default_factory=dict, hash=False)

    def reasons_against(self, theirs: "Setting") -> list[str]:
        """Why numbers of this setting say nothing about `theirs`; none where they do."""
        found = self.elsewhere(theirs)
        if self.prompts != theirs.prompts:
            found.append(f"prompts {self.prompts}, theirs {theirs.prompts}")
        found += _apart("selected by", self.selections, theirs.selections)
        found += _apart("over-refusal read as", self.over_refusal, theirs.over_refusal)
        found += ["a system prompt, theirs none"] if self.notes.get("system_prompt") else []
        return found + self.other_draw(self.notes, "03")

    def other_draw(self, notes: Mapping[str, Any], notebook: str) -> list[str]:
        """Why what `notes` are of does not belong to this setting's draw; nothing where it does, or says nothing of it."""
        same = notes.get("draw") in (None, self.draw)
        return [] if same else [f"of another draw than 01_draw.csv (run notebook {notebook} again)"]

    def elsewhere(self, theirs: "Setting") -> list[str]:
        """Why this is not the model of `theirs` at its layer and position; none where it is."""
        if plain_name(self.model) != theirs.model:
            return [f"other model ({theirs.model})"]
        layers = _apart("layer", self.layers, theirs.layers)
        return layers or _apart("position", self.positions, theirs.positions)


N_PAPER = 32  # prompts a side of every direction of the paper
# The paper's own rows for Gemma are those that Gemma refused.
GEMMA = Setting(GEMMA_MODEL, (20,), (-2,), "paper", ("behaviour", "published"), ("unsafe",), N_PAPER)
LLAMA = Setting(LLAMA_MODEL, (15, 16), (-2,), "paper", ("behaviour",), ("unsafe",), N_PAPER)


def read_setting(folder: Path, model: str) -> Setting:
    """What the numbers in a model's folder were measured on, as notebooks 01 and 03 noted it."""
    notes = _direction_notes(folder / "03_directions.safetensors")
    draw = pd.read_csv(folder / "01_draw.csv") if (folder / "01_draw.csv").is_file() else pd.DataFrame()
    prompts, selections, readings = (
        tuple(sorted(map(str, draw[name].dropna().unique()))) if name in draw else ()
        for name in ("prompts", "selection", "over_refusal")
    )
    layers, positions = (tuple([notes[name]] if name in notes else []) for name in ("layer", "pos"))
    n_prompts = int(draw["category"].value_counts().min()) if "category" in draw else 0
    return Setting(
        model=model,
        layers=layers,
        positions=positions,
        prompts=prompts[0] if prompts else "builtin",
        selections=selections,
        over_refusal=readings,
        n_prompts=n_prompts,
        draw="" if draw.empty else draw_digest(draw),
        notes=notes,
    )


def _apart(what: str, ours: Sequence[object], theirs: Sequence[object]) -> list[str]:
    """What sets ours apart, unless it is among theirs."""
    return [] if ours and set(ours) <= set(theirs) else [f"{what} {_or_unknown(ours)}, theirs {_or_unknown(theirs)}"]


def _or_unknown(values: Sequence[object]) -> str:
    return " or ".join(map(str, values)) or "unknown"


def _direction_notes(path: Path) -> dict[str, Any]:
    try:
        return load_tensors(path)[1]
    except ValueError:
        return {}
