"""Choose the bundled model's decision state once, by causal effect on train prompts, and record it beside the weights."""

import json
from pathlib import Path

import pandas as pd

from ..directions.estimation import normalize
from ..model.chat_model import ChatModel, load_chat_model
from ..model.defaults import DEFAULT_POS
from ..prompts.categories import BENIGN, CATEGORY_IDS
from ..prompts.loading import load_prompts
from ..steering.contexts import ablate_direction, add_steering
from .check import rates, respond, train_differences

STRENGTHS = (0.7, 1.0)  # in gaps
N_PROBE = 16
N_OWN = 4
RECORD = "decision_state.json"


def effect_table(chat: ChatModel, layers: range | None = None) -> pd.DataFrame:
    """Per layer and template position: how well the eleven directions read there steer and ablate, on train prompts.

    `induced`: share of benign prompts refused when a direction is added, less broken text, the better of two
    strengths, mean over directions. `ablated`: share of a category's prompts no longer refused when its direction is
    ablated, mean over categories. `effect`: the mean of both.
    """
    train = load_prompts(split="train").sample(frac=1, random_state=0)
    benign = list(train["text"][train["category"] == BENIGN][:N_PROBE])
    own = {name: list(train["text"][train["category"] == name][:N_OWN]) for name in CATEGORY_IDS}
    rows = []
    for layer in layers or range(chat.n_layers // 2, chat.n_layers):
        for pos in range(-len(chat.suffix), 0):
            differences = train_differences(chat, layer, pos)
            induced = ablated = 0.0
            for category, difference in differences.items():
                tried = []
                for strength in STRENGTHS:
                    with add_steering(chat, strength * difference, layer):
                        _, refused, broken = rates(chat, own[category], benign)
                    tried.append(refused - broken)
                induced += max(tried) / len(differences)
                with ablate_direction(chat, normalize(difference)):
                    kept = [verdict.outcome for verdict in respond(chat, own[category])].count("refused")
                ablated += (1 - kept / len(own[category])) / len(differences)
            rows.append((layer, pos, induced, ablated, (induced + ablated) / 2))
    return pd.DataFrame(rows, columns=["layer", "pos", "induced", "ablated", "effect"])


def record_decision_state(folder: Path) -> pd.DataFrame:
    """Measure every state, write the one with the largest effect into the model folder, and return the table.

    Of equal ones, one at the position that the paper reads.
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
