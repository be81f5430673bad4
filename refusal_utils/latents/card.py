"""The card of autoencoders that were trained here: what was measured, and how to use them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..model.chat_model import ChatModel
from .quality import Quality

CARD = """\
---
license: apache-2.0
library_name: saelens
---

# Sparse autoencoders of {model}

Each folder `layer_N` holds a sparse autoencoder (SAE) of the output of block N (`blocks.N.hook_resid_post`, which is
`resid_pre` of layer N + 1), in SAELens' format with weights in float16. `refusal_utils.latents.load_sae(folder,
"sae_lens")` and SAELens' `SAE.load_from_disk` both read it.

{recipe}

States above ten times the median norm were left out of training and variance, and are left as they are when the
reconstruction is spliced in. No other tokens were left out.

## Measured on {n_held_out} held-out chats

{table}

*Explained*: the share of variance that is left after encoding and decoding, at the decision state (position
{pos}) and over all tokens. *L0*: the mean number of latents that fire. *Dead*: latents that fire at no token of these
chats. *Cross-entropy*: of the model's own responses, in nats, with the stream as it is, with its reconstruction
spliced in at all tokens, and without (replaced by 0); *recovered* is (without - spliced) / (without - as it is).
*Outside*: the share of decision states beyond what the SAE was trained on.
"""


def write_card(
    folder: str | Path, chat: ChatModel, quality: Quality, n_held_out: int, recipe: Mapping[str, Any]
) -> Path:
    """The path of `README.md` in `folder`, written with the measures and the recipe; `quality.csv` lies next to it."""
    place = Path(folder)
    quality.table().round(4).to_csv(place / "quality.csv")
    rows = quality.table().T
    lines = [f"| | {' | '.join(f'layer {layer}' for layer in rows)} |", "|---|" + "---|" * rows.shape[1]]
    lines += [f"| {name} | {' | '.join(f'{value:.4g}' for value in own)} |" for name, own in rows.iterrows()]
    told = "\n".join(f"- {name}: {value}" for name, value in recipe.items())
    text = CARD.format(
        model=chat.short_name, recipe=told, n_held_out=n_held_out, table="\n".join(lines), pos=chat.decision_pos
    )
    path = place / "README.md"
    path.write_text(text, encoding="utf-8")
    return path
