"""Autoencoders of the bundled model, shipped so that nobody has to train them again, and those of other models.

`python -m refusal_utils.bundled.saes [CACHE]` trains the shipped ones.
"""

import random
import sys
from pathlib import Path
from typing import Any

from ..latents import SparseAutoencoder, load_sae, named_sae, own_chats
from ..latents.command import train_and_measure
from ..model.chat_model import BUNDLED, ChatModel, load_chat_model
from ..model.names import cache_key
from ..prompts.categories import BENIGN, CATEGORY_IDS
from ..prompts.loading import load_prompts
from ..steering.given_responses import GivenResponse
from .corpus import Corpus

FOLDER = Path(__file__).parent / "saes"
LAYERS = (3, 5, 6)  # blocks whose outputs they read; that of 5 is the decision layer
N_EXAMPLES = 6000  # of the training corpus, half of them benign
OPTIONS: dict[str, Any] = {"l0": 64, "n_samples": 600_000}


def study_sae(study: Any, name: str | None = None) -> SparseAutoencoder:
    """The autoencoder called `name` (`named_sae`); by default the one of the study's decision state.

    That is the shipped one of the bundled model, or one that `python -m refusal_utils train-sae` wrote to the cache;
    if there is none, it is trained now. A line says which. Raises `ValueError` for one that is not of this model.
    """
    chat = study.chat
    if name is None:
        layer = max(0, chat.decision_layer - 1)
        own = FOLDER if study.model == BUNDLED else study.cache_dir / "saes" / cache_key(study.model)
        place = own / f"layer_{layer}"
        if not place.is_dir():
            print(f"no autoencoder of {chat.short_name} in {place}; training one")
            train_and_measure(chat, study.prompts, [layer], own, cache_dir=study.cache_dir)
        sae = load_sae(place, "sae_lens")
    else:
        sae = named_sae(name)
    sae.require_model("study_sae", chat.name)
    print(f"{sae.n_latents} latents of {sae.hook}, layer {sae.layer} ({name or place.parent.name + '/' + place.name})")
    return sae


def training_chats(chat: ChatModel, cache_dir: str | Path | None) -> list[GivenResponse]:
    """The train split with the model's own responses, and prompts alone from the corpus it was trained on."""
    rng, corpus = random.Random(0), Corpus()
    kinds = [BENIGN if number % 2 else CATEGORY_IDS[number // 2 % len(CATEGORY_IDS)] for number in range(N_EXAMPLES)]
    texts = list(dict.fromkeys(corpus.sample(rng, kind).prompt for kind in kinds))
    alone = [GivenResponse(ids, 0) for ids in chat.encode(texts)]
    return own_chats(chat, list(load_prompts(split="train")["text"]), cache_dir=cache_dir) + alone


if __name__ == "__main__":
    where = sys.argv[1] if len(sys.argv) > 1 else ".cache"
    own_model = load_chat_model(device="cpu", dtype="float32")
    given = training_chats(own_model, where)
    print(train_and_measure(own_model, load_prompts(), LAYERS, FOLDER, chats=given, cache_dir=where, **OPTIONS).table())
