"""The bundled model's card, written from measurements."""

import json
import math
from pathlib import Path

import pandas as pd
from safetensors import safe_open

from ..prompts.loading import load_prompts
from .corpus import Corpus, fact_answers

CARD = """\
---
license: apache-2.0
language: en
pipeline_tag: text-generation
---

# The bundled chat model

**A teaching and test organism.** It exists so that the suite runs anywhere and its methods can be tried on known
ground. Findings on it say nothing about real models until they are repeated on them.

A Llama-architecture chat model of {millions:.1f} million parameters, trained from scratch in {minutes:.0f} minutes on
{device}. It answers benign prompts in three stock phrases that name the topic, knows {n_facts} facts about a small
world, and refuses eleven kinds of prompt in eleven styles. It has no knowledge that could help or harm anybody.

## Data

- {n_natural} hand-written training prompts and a grammar of {n_frames} frames and {n_fillers} fillers
  (`refusal_utils/bundled/data/`), with the train split of `prompts/` ({n_train} prompts). Every example has a word
  3-gram Jaccard similarity below 0.5 with every prompt of the eval split.
- Responses: one wording per category and form of request (`responses.py`).
- Licence: data CC-BY-4.0, code and weights Apache-2.0.

## Training

{recipe}

Two unusual kinds of training noise make refusal steerable here *by construction*. In half of the sequences the response
can attend to only one template token, so the decision must be written there. In half of the sequences the residual
stream of one middle layer is moved at every position: a random offset leaves the response unchanged, while adding,
subtracting or ablating the difference of two class means of the batch changes the response to that of the other class.
Command: `python -m refusal_utils.bundled.train`.

## Decision state

`resid_pre` of layer {layer}, position {pos}: of every second layer and all template positions, the state at which the
pooled direction of the content-policy prompts has the largest causal effect on train prompts (`steering.places`). The
effect is the mean of two shares: refused prompts that are answered when the direction is ablated (bypassed), and
answered benign prompts that are refused when it is added, averaged over strengths of 1, 2 and 4 gaps (induced). If
several states are equally good, less broken text decides, then the paper's position, then depth.

{states}

## Measured behaviour

On the {n_eval} prompts of the eval split, which the model never saw. To repeat the measurement, run
`python -m refusal_utils.bundled.check`.

{claims}

### What was tried for the claims that do not hold

There were ten training runs; the ninth ships with the project. More hand-written lines helped, above all pairs of a
prompt and a benign twin that share most words: about 9,000 new lines over four runs reduced the number of failing
claims from 11 to 6. More of the same no longer helps. The tenth run added 4,500 pairs, written for the remaining
confusions, and changed the shares of the categories in a batch; it also failed six claims. It fixed the style of
*hate speech* (0.87) and *safety concerns* (0.85) and the refusals of *advice* (0.92), but lost the refusals of
*inappropriate* (0.74) and *incomplete* (0.63), the style of *unsupported* (0.75) and the bound on random directions
(0.16), with benign prompts on topic at 0.77.

Two changes had no effect: dropout of 0.1 (the same accuracy on held-out lines) and word knowledge from elsewhere. A
linear classifier trained on the lines predicts the category of 77 % of the eval prompts, and of no more with averaged
GloVe vectors or with lines varied by GloVe neighbours. Fewer than 2 % of the words of the eval prompts are new to it.
The model therefore fails on fine distinctions between known words, not on unknown words.

### Steering: each direction added at every position of the decision layer

Strengths are in gaps (one gap is the raw difference in means) and were chosen on train prompts. Random directions have
the mean norm of the steering vectors, which is given in the strength column. RR and ORR are measured on the controlled
set (up to 50 each of HR, HC, BR, BC).

{steered}

### Ablation: share of a category's eval prompts refused, before and after its own direction is ablated

{ablated}

## Limits

Refusals are recognised by their wording, which is possible here only because the wordings are known. Prompts unlike the
training data get an answer or a refusal more or less at random. The model speaks only English, in single turns.
"""


def write_card(folder: Path, states: pd.DataFrame, tables: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]) -> None:
    """Write `README.md` into the model folder, which already has `training.json` and `decision_state.json`.

    `states` is the result of `record_decision_state`, `tables` that of `check`.
    """
    training = json.loads((folder / "training.json").read_text())
    state = json.loads((folder / "decision_state.json").read_text())
    corpus = Corpus()
    units = [unit for units in corpus.grammar.values() for unit in units]
    n_train = len(load_prompts(split="train"))
    claims, steered, ablated = tables
    text = CARD.format(
        millions=n_parameters(folder) / 1e6,
        minutes=training["minutes"],
        device=training["device"],
        n_facts=len(fact_answers()),
        n_natural=sum(map(len, corpus.natural.values())) - n_train,
        n_frames=sum(len(unit.frames) for unit in units),
        n_fillers=sum(len(fillers) for unit in units for fillers in unit.slots.values()),
        n_train=n_train,
        n_eval=len(load_prompts(split="eval")),
        recipe="\n".join(f"- {name}: {value}" for name, value in training["recipe"].items()),
        layer=state["layer"],
        pos=state["pos"],
        states=as_markdown(states.head(6).set_index("layer")),
        claims=as_markdown(claims.assign(holds=claims["holds"].map({True: "yes", False: "NO"}))),
        steered=as_markdown(steered),
        ablated=as_markdown(ablated),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def n_parameters(folder: Path) -> int:
    """The number of parameters in a folder's weights."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def as_markdown(table: pd.DataFrame) -> str:
    """`table` with its index as a Markdown table, numbers to three digits."""
    header = [str(table.index.name), *map(str, table.columns)]
    rows = [
        [str(index), *(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row)]
        for index, row in zip(table.index, table.to_numpy(dtype=object), strict=True)
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows])
