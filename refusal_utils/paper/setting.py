"""What numbers were measured on, ours and the paper's, and why ours may not be comparable with theirs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..checks import did_you_mean, require
from ..directions.direction_set import DirectionSet, Provenance
from ..model.names import folder_names, full_name, model_folder, owner, short_name
from ..prompts.draws import draw_digest, read_draw_rows
from .tables import GEMMA as GEMMA_MODEL
from .tables import LLAMA as LLAMA_MODEL
from .tables import plain_name


@dataclass(frozen=True)
class Setting:
    """What numbers were measured on: a model, layers, positions and prompts, and how the prompts were chosen.

    `selections`: values of SELECT_BY. `over_refusal`: values of OVER_REFUSAL. `n_prompts`: on each side of a direction.
    `draw`: digest of the prompts. `model_notes`: dtype, system prompt and the like, of the model that the directions
    were read from; `direction_draw`: digest of the prompts that they were estimated from. Empty or 0: unknown.
    """

    model: str
    layers: tuple[int, ...]
    positions: tuple[int, ...]
    prompts: str
    selections: tuple[str, ...] = ()
    over_refusal: tuple[str, ...] = ()
    n_prompts: int = 0
    draw: str = ""
    direction_draw: str | None = None
    model_notes: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def reasons_against(self, theirs: "Setting") -> list[str]:
        """Why numbers of this setting are not comparable with `theirs`; empty if they are."""
        found = self.elsewhere(theirs)
        if self.prompts != theirs.prompts:
            found.append(f"prompts {self.prompts}, theirs {theirs.prompts}")
        found += _apart("selected by", self.selections, theirs.selections)
        found += _apart("over-refusal read as", self.over_refusal, theirs.over_refusal)
        found += ["a system prompt, theirs none"] if self.model_notes.get("system_prompt") else []
        return found + self.other_draw(self.direction_draw, "03")

    def other_draw(self, draw: str | None, notebook: str) -> list[str]:
        """Why a result of `notebook` on `draw` is not of this setting; empty if it is, or if `draw` is None."""
        same = draw in (None, self.draw)
        return [] if same else [f"of another draw than 01_draw.csv (run notebook {notebook} again)"]

    def elsewhere(self, theirs: "Setting") -> list[str]:
        """Why this is not the model of `theirs` at its layer and position; empty if it is."""
        if plain_name(self.model) != theirs.model:
            return [f"other model ({theirs.model})"]
        layers = _apart("layer", self.layers, theirs.layers)
        return layers or _apart("position", self.positions, theirs.positions)


N_PAPER = 32  # prompts on each side of every direction in the paper
# The rows that the paper published for Gemma are prompts that Gemma refused, so they count as selected by behaviour.
GEMMA = Setting(GEMMA_MODEL, (20,), (-2,), "paper", ("behaviour", "published"), ("unsafe",), N_PAPER)
LLAMA = Setting(LLAMA_MODEL, (15, 16), (-2,), "paper", ("behaviour",), ("unsafe",), N_PAPER)


def read_setting(folder: Path, model: str) -> Setting:
    """What the numbers in a model's folder were measured on, as notebooks 01 and 03 recorded it.

    Raises `ValueError` if the folder belongs to another model.
    """
    whose, must = owner(folder), "the figures must be of the model asked for"
    require(
        whose in (None, full_name(model)), "read_setting", must, f"figures of {whose} for {model}", "Check its name."
    )
    found = _provenance(folder)
    draw = read_draw_rows(folder / "01_draw.csv")
    prompts, selections, readings = (
        tuple(sorted({*draw[name]} - {""})) if name in draw else () for name in ("prompts", "selection", "over_refusal")
    )
    return Setting(
        model=model,
        layers=(found.layer,) if found else (),
        positions=(found.pos,) if found and found.pos is not None else (),
        prompts=prompts[0] if prompts else "builtin",
        selections=selections,
        over_refusal=readings,
        n_prompts=int(draw["category"].value_counts().min()) if "category" in draw else 0,
        draw="" if draw.empty else draw_digest(draw),
        direction_draw=found.draw if found else None,
        model_notes=found.model if found else {},
    )


def figures_of(function: str, model: str, root: str | Path | None = None) -> Path:
    """The folder with the figures of `model`. Raises `ValueError` in the name of `function` if there is none."""
    folder, name = model_folder(model, root), full_name(model)
    others = {owner(folder.with_name(each)) or "" for each in folder_names(model)} - {"", name}
    got = f"no folder {folder}" + (f"; {short_name(model)} there is {' and '.join(sorted(others))}" if others else "")
    near = did_you_mean(name, [each for own in folder.parent.glob("*/") for each in (own.name, owner(own) or own.name)])
    todo = near or f"Run python -m refusal_utils run --model {model} first."
    require(folder.is_dir(), function, "the notebooks must have run on the model", got, todo)
    return folder


def _provenance(folder: Path) -> Provenance | None:
    """Where the directions were read: from their file or, in a checkout that has tables only, from `03_map.csv`."""
    try:
        return DirectionSet.load(folder / "03_directions.safetensors").provenance
    except ValueError:
        pass
    path = folder / "03_map.csv"
    notes = pd.read_csv(path) if path.is_file() and path.stat().st_size else pd.DataFrame()
    if not {"layer", "pos", "decision_source"} <= {*notes}:
        return None
    first = notes.astype(object).where(notes.notna(), None).iloc[0].to_dict()
    return Provenance(int(first.pop("layer")), int(first.pop("pos")), model=first)


def _apart(what: str, ours: Sequence[object], theirs: Sequence[object]) -> list[str]:
    """How ours differ from theirs; empty if all of ours are among theirs."""
    return [] if ours and set(ours) <= set(theirs) else [f"{what} {_or_unknown(ours)}, theirs {_or_unknown(theirs)}"]


def _or_unknown(values: Sequence[object]) -> str:
    return " or ".join(map(str, values)) or "unknown"
