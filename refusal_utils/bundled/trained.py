"""Trained directions of the bundled model, shipped so that nobody has to train them again.

`python -m refusal_utils.bundled.trained [CACHE]` trains them. If the run is killed, the same command resumes
it.
"""

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ..directions import DirectionSet, Provenance
from ..methods import named_method
from ..methods.losses import is_float16_on_cpu
from ..model.artifacts import model_notes
from ..model.chat_model import load_chat_model
from ..prompts.draws import draw_digest, draw_prompts
from ..prompts.loading import load_prompts

FOLDER = Path(__file__).parent / "directions"
SHIPPED: dict[str, dict[str, Any]] = {"rdo": {}, "cones": {"k": 2, "complete": True}}  # options by method
N_PROMPTS = 96  # of a category: the default draw
SAME = ("fingerprint", "dtype", "dequantized_from", "thinking", "system_prompt")  # notes on the model that must agree


def trained_directions(study: Any, method: str, folder: Path = FOLDER, **options: Any) -> DirectionSet:
    """What the method with these options finds on the study's draw: shipped if it was found before, else trained now.

    A shipped set must be of the same model in the same precision, the same drawn prompts and the same options. A line
    is printed that says which. What is trained now starts from the difference in means at the decision state, unless
    `place` says otherwise, because not every model and every draw passes the selection that chose the place of the
    shipped sets. In float16 on the CPU, training uses a copy of the model in float32. Raises `ValueError` as the method
    does.
    """
    path, own = folder / f"{method}.safetensors", named_method(method)
    if path.is_file() and _is_of(found := DirectionSet.load(path), study, own.chosen(options)):
        print(f"{method}: trained before on this model and these prompts ({path.name})")
        return found
    print(f"{method}: no trained directions of this model, these prompts and these options are shipped; training")
    layer, pos = study.chat.decision_layer, study.chat.decision_pos
    if is_float16_on_cpu(study.chat):
        print(f"{method}: trained in float32, because nothing is trained in float16 on the CPU")
        study = study.with_model(study.model, dtype="float32", layer=layer, pos=pos)
    return own.fit(study, **{"place": (layer, pos), **options})


def _is_of(found: DirectionSet, study: Any, options: dict[str, Any]) -> bool:
    told, notes = found.provenance, model_notes(study.chat)
    is_same_model = all(told.model[name] == notes[name] for name in SAME)
    is_same_way = all(told.settings[name] == value for name, value in options.items())
    return is_same_model and is_same_way and told.draw == draw_digest(study.draw)


def train(folder: Path, cache_dir: str) -> None:
    """Train every shipped set on the draw that notebook 01 makes by default, on the CPU in float32."""
    chat = load_chat_model(device="cpu", dtype="float32")
    draw = draw_prompts(load_prompts(split="train"), "label", N_PROMPTS).assign(prompts="builtin")
    place = partial(Provenance, draw=draw_digest(draw), model=model_notes(chat))
    study = SimpleNamespace(chat=chat, draw=draw, cache_dir=cache_dir, provenance=place)
    for method, options in SHIPPED.items():
        print(named_method(method).fit(study, **options).save(folder / f"{method}.safetensors"))


if __name__ == "__main__":
    train(FOLDER, sys.argv[1] if len(sys.argv) > 1 else ".cache")
