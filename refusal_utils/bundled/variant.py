"""The bundled variant with control tokens: the weights that its training starts from, and its card."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from ..model.chat_model import BUNDLED_WEIGHTS, load_chat_model
from ..prompts.loading import load_prompts
from ..prompts.twins import contrast_pairs
from ..steering.control_tokens import find_control_tokens
from ..tradeoff.refusal_tokens import force_first_tokens
from .card import as_markdown, n_parameters
from .check import N_BUCKET, behaviour, judge_wording
from .claims import behaviour_claims, claim_table
from .decision import RECORD
from .recipe import CONTROL, Recipe

CARD = """\
---
license: apache-2.0
language: en
pipeline_tag: text-generation
---

# The bundled chat model with control tokens

**A teaching and test organism**, the variant of the bundled model (`refusal_utils/bundled/weights`) that begins every
response with a control token: one of eleven for the kind of refusal, or one for answers. Findings on it say nothing
about real models until they are repeated on them. Method: *Refusal Tokens*, arXiv 2412.06748.

`load_chat_model("bundled-tokens")` loads it. The tokens, each a single special token: {tokens}.

## Training

The bundled model of {millions:.1f} million parameters, trained on for {steps} steps ({minutes:.0f} minutes on {device})
with the same data, batches and training noise, and with the control token of the response's category put before every
response. In the pairs of a prompt and a benign twin that share most words, the twin has the token for answers. Only the
embeddings of the twelve tokens are new. The weights of the bundled model are the starting point, so directions before
and after can be compared.

{recipe}

Command: `python -m refusal_utils.bundled.train --control-tokens`.

## Decision state

`resid_pre` of layer {layer}, position {pos}: the place of the bundled model, so that the same state is compared. It
lies before the control token.

## Measured behaviour

On the {n_eval} prompts of the eval split, which the model never saw:

{claims}

### Control tokens

{n_pairs} pairs of an eval prompt and its twin. Refusals are counted by text. The rates are those of the tokens that the
model chooses itself; F1 counts a refused prompt as a hit and a refused twin as a false alarm. Intervals are 95 %.

{rates}

How often the words do not follow a token that is forced:

{forcing}

## Limits

Those of the bundled model: refusals are recognised by their wording, prompts unlike the training data get either kind
of response, English only, single turns. The first token of every response is a control token, so measures that read the
first word of a refusal at the last prompt position do not apply.
"""


def with_control_tokens(recipe: Recipe) -> tuple[PreTrainedTokenizerFast, Any]:
    """The bundled model's tokenizer and weights with twelve more tokens, whose embeddings are not trained yet."""
    torch.manual_seed(recipe.seed)
    tokenizer: Any = AutoTokenizer.from_pretrained(BUNDLED_WEIGHTS)
    model: Any = AutoModelForCausalLM.from_pretrained(BUNDLED_WEIGHTS, dtype=torch.float32)
    for name in ("is_local", "local_files_only"):  # how it was loaded, which is no property of the tokenizer
        tokenizer.init_kwargs.pop(name, None)
    tokenizer.add_tokens(list(CONTROL.values()), special_tokens=True)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return tokenizer, model


def write_variant_card(folder: Path) -> None:
    """Write `README.md` and the decision state into the folder of the variant, which already has `training.json`."""
    training = json.loads((folder / "training.json").read_text())
    state = {name: json.loads((BUNDLED_WEIGHTS / RECORD).read_text())[name] for name in ("hook", "layer", "pos")}
    (folder / RECORD).write_text(json.dumps(state, indent=1) + "\n")
    chat, prompts = load_chat_model(folder), load_prompts(split="eval")
    pairs = contrast_pairs(prompts, 20)
    tokens = find_control_tokens(chat)
    assert tokens is not None, "the variant has its tokens"
    forced = force_first_tokens(chat, pairs, tokens, judge=judge_wording)
    claims = claim_table(behaviour_claims(behaviour(chat), N_BUCKET))
    text = CARD.format(
        tokens=", ".join(f"`{token}`" for token in CONTROL.values()),
        millions=n_parameters(folder) / 1e6,
        steps=training["recipe"]["steps"],
        minutes=training["minutes"],
        device=training["device"],
        recipe="\n".join(f"- {name}: {value}" for name, value in training["recipe"].items()),
        layer=state["layer"],
        pos=state["pos"],
        n_eval=len(prompts),
        claims=as_markdown(claims.assign(holds=claims["holds"].map({True: "yes", False: "NO"}))),
        n_pairs=len(pairs) // 2,
        rates=as_markdown(forced.table()),
        forcing=as_markdown(forced.forcing().rename_axis("forced")),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
