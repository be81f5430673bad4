"""Autoencoders of the bundled model, shipped so that nobody has to train them again, and those of other models.

`python -m refusal_utils.bundled.saes [CACHE]` trains the shipped ones. If the run is killed, the same
command resumes it.
"""

import argparse
import random
from pathlib import Path
from typing import Any

import pandas as pd

from ..latents import SparseAutoencoder, load_sae, named_sae, own_chats
from ..latents.command import train_and_measure
from ..latents.training import N_LATENTS, N_SAMPLES
from ..model.chat_model import BUNDLED, ChatModel, load_chat_model
from ..model.names import cache_key
from ..prompts.categories import BENIGN, CATEGORY_IDS
from ..prompts.loading import load_prompts
from ..steering.given_responses import GivenResponse
from .corpus import Corpus

FOLDER = Path(__file__).parent / "saes"
LAYERS = (3, 5, 6)  # blocks whose outputs they read; that of 5 is the decision layer
N_EXAMPLES = 6000  # of the training corpus, half of them benign
OPTIONS: dict[str, Any] = {"l0": 96, "n_samples": 600_000}


def study_sae(
    study: Any,
    name: str | None = None,
    *,
    max_new_tokens: int = 50,
    n: int | None = None,
    n_trained: int | None = None,
) -> SparseAutoencoder:
    """The autoencoder called `name` (`named_sae`); by default the one of the study's decision state.

    That is the shipped one of the bundled model, or one that `python -m refusal_utils train-sae` wrote to the cache;
    if there is none, it is trained now on responses of `max_new_tokens` and measured on those to `study.held_out(n)`.
    `n_trained`: train on that many prompts of each category only, for as many rounds as on all (None). A line says
    which. Raises `ValueError` for one that is not of this model.
    """
    chat = study.chat
    if name is None:
        layer = max(0, chat.decision_layer - 1)
        cached = study.cache_dir / "saes" / cache_key(study.model)
        whole = [FOLDER] * (study.model == BUNDLED) + [cached]
        few = cached if n_trained is None else cached / f"{n_trained}_per_category"
        own = next((folder for folder in whole if (folder / f"layer_{layer}").is_dir()), few)
        place = own / f"layer_{layer}"
        if not place.is_dir():
            print(f"no autoencoder of {chat.short_name} in {place}; training one")
            how: dict[str, Any] = {"max_new_tokens": max_new_tokens, "cache_dir": study.cache_dir}
            how |= {} if n_trained is None else {"n_samples": _as_many_rounds(study.prompts, n_trained)}
            prompts = study.prompts if n_trained is None else _few(study.prompts, n_trained)
            train_and_measure(chat, prompts, [layer], own, held_out=list(study.held_out(n)["text"]), **how)
        sae = load_sae(place, "sae_lens")
    else:
        sae = named_sae(name)
    sae.require_model("study_sae", chat.name)
    print(f"{sae.n_latents} latents of {sae.hook}, layer {sae.layer} ({name or place.parent.name + '/' + place.name})")
    return sae


def _few(prompts: pd.DataFrame, n: int) -> pd.DataFrame:
    """The first `n` train prompts of each category."""
    return prompts[prompts["split"] == "train"].groupby("category").head(n)


def _as_many_rounds(prompts: pd.DataFrame, n: int) -> int:
    """The number of states that `_few` prompts need to be seen as often as all would be."""
    return max(1, round(N_SAMPLES * len(_few(prompts, n)) / (prompts["split"] == "train").sum()))


def training_chats(
    chat: ChatModel, cache_dir: str | Path | None, prompts: pd.DataFrame | None = None, n_examples: int = N_EXAMPLES
) -> list[GivenResponse]:
    """The train split with the model's own responses, and prompts alone from the corpus it was trained on.

    `prompts`: the built-in ones by default. `n_examples`: drawn from the corpus, each prompt is used once.
    """
    rng, corpus = random.Random(0), Corpus()
    kinds = [BENIGN if number % 2 else CATEGORY_IDS[number // 2 % len(CATEGORY_IDS)] for number in range(n_examples)]
    texts = list(dict.fromkeys(corpus.sample(rng, kind).prompt for kind in kinds))
    alone = [GivenResponse(ids, 0) for ids in chat.encode(texts)]
    rows = load_prompts() if prompts is None else prompts
    return own_chats(chat, list(rows.loc[rows["split"] == "train", "text"]), cache_dir=cache_dir) + alone


def main(arguments: list[str] | None = None) -> None:
    """Train the autoencoders of the bundled model, and print their measures."""
    parser = argparse.ArgumentParser(prog="python -m refusal_utils.bundled.saes", description=main.__doc__)
    parser.add_argument("cache", nargs="?", default=".cache", help="keeps responses and states (.cache)")
    parser.add_argument("--out", default=FOLDER, metavar="DIR", help="the folder to write; by default the shipped one")
    parser.add_argument("--layers", type=int, nargs="+", default=LAYERS, metavar="N", help="blocks that are read")
    parser.add_argument("--prompts", default="builtin", metavar="SOURCE", help="as for `python -m refusal_utils run`")
    parser.add_argument("--examples", type=int, default=N_EXAMPLES, metavar="N", help="of the training corpus")
    parser.add_argument("--latents", type=int, default=N_LATENTS, metavar="N", help="number of latents")
    for name, what in (("l0", "how many fire"), ("n_samples", "states seen")):
        parser.add_argument(f"--{name.replace('n_', '')}", type=int, default=OPTIONS[name], metavar="N", help=what)
    given = parser.parse_args(arguments)
    chat, prompts = load_chat_model(device="cpu", dtype="float32"), load_prompts(source=given.prompts)
    chats = training_chats(chat, given.cache, prompts, given.examples)
    options = {"l0": given.l0, "n_samples": given.samples, "n_latents": given.latents}
    how: dict[str, Any] = {"chats": chats, "cache_dir": given.cache, **options}
    print(train_and_measure(chat, prompts, given.layers, given.out, **how).table().T.round(3).to_string())


if __name__ == "__main__":
    main()
