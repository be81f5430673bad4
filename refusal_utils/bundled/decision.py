"""Choose the bundled model's decision state by causal effect on train prompts, and record it with the weights."""

import json
from pathlib import Path

import pandas as pd

from ..model.chat_model import load_chat_model
from ..prompts.loading import load_prompts
from ..steering.places import place_effects

RECORD = "decision_state.json"


def record_decision_state(folder: Path) -> pd.DataFrame:
    """The table of `place_effects`, after writing its best place into the model folder."""
    effects = place_effects(load_chat_model(folder), load_prompts())
    layer, pos = effects.best
    effect = round(float(effects.table().loc[0, "effect"]), 3)
    record = {"hook": "resid_pre", "layer": layer, "pos": pos, "effect": effect}
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    return effects.table()
