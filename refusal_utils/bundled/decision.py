"""Choose the bundled model's decision state by causal effect on train prompts, and record it with the weights."""

import json
from pathlib import Path

import pandas as pd

from ..model.chat_model import ChatModel, load_chat_model
from ..model.defaults import DEFAULT_POS
from ..prompts.categories import BENIGN, CATEGORY_IDS
from ..prompts.loading import load_prompts
from ..steering.conditions import ablation_condition, steering_condition
from ..steering.responses import respond
from .check import judge_wording, train_directions

STRENGTHS = (0.7, 1.0)  # in gaps
N_PROBE = 16
N_OWN = 4
RECORD = "decision_state.json"


def effect_table(chat: ChatModel, layers: range | None = None) -> pd.DataFrame:
    """How well the eleven directions read at each layer and template position steer and ablate, on train prompts.

    `induced`: the share of benign prompts refused when a direction is added, minus the share of broken text, at the
    better of two strengths, averaged over directions. `ablated`: the share of a category's prompts no longer refused
    when its direction is ablated, averaged over categories. `effect`: the mean of both.
    """
    train = load_prompts(split="train").sample(frac=1, random_state=0)
    benign = train[train["category"] == BENIGN].head(N_PROBE)
    own = {name: train[train["category"] == name].head(N_OWN) for name in CATEGORY_IDS}
    rows = []
    for layer in layers or range(chat.n_layers // 2, chat.n_layers):
        for pos in range(-len(chat.suffix), 0):
            directions = train_directions(chat, layer, pos)
            induced = ablated = 0.0
            for name in directions:
                probe = pd.concat([own[name], benign])
                tried = [steering_condition(directions, name, gaps=strength) for strength in STRENGTHS]
                steered = respond(chat, probe, tried, judge=judge_wording)
                shares = [_induced(group) for _, group in steered.groupby("gaps")]
                left = respond(chat, own[name], [ablation_condition(directions, name)], judge=judge_wording)
                induced += max(shares) / len(directions)
                ablated += float((left["outcome"] != "refused").mean()) / len(directions)
            rows.append((layer, pos, induced, ablated, (induced + ablated) / 2))
    return pd.DataFrame(rows, columns=["layer", "pos", "induced", "ablated", "effect"])


def _induced(rows: pd.DataFrame) -> float:
    """The refused share of the benign prompts, minus the share of broken text among all."""
    refused = rows["outcome"][rows["category"] == BENIGN] == "refused"
    return float(refused.mean() - (rows["outcome"] == "broken").mean())


def record_decision_state(folder: Path) -> pd.DataFrame:
    """Write the state with the largest effect into the model folder, and return the effects at every state.

    If several states are equally good, one at the paper's position is chosen.
    """
    table = effect_table(load_chat_model(folder)).round(6)
    at_published = (table["pos"] == DEFAULT_POS).rename("at_published")
    best = table.join(at_published).sort_values(["effect", "at_published"], kind="stable").iloc[-1]
    record = {
        "hook": "resid_pre",
        "layer": int(best["layer"]),
        "pos": int(best["pos"]),
        "effect": round(float(best["effect"]), 3),
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    return table
