"""How many rows the searches for a place and the training of directions run through the model (notebooks 09 and 11)."""

from typing import Any

import pandas as pd

from ...methods import arditi_selection, cosmic
from ...methods.candidates import N_ASKED, N_TOKENS
from ...methods.cones import METHOD as CONES
from ...methods.cones import STRIDE
from ...methods.targets import N_ANSWER, N_RETAINED
from ...methods.training import N_LAST
from ...steering.places import POLICY, reading_half
from .scene import Loop, Scene

GRADIENT, N_MIXED = 3.0, 3  # passes that one with gradients is worth; directions that a prompt of a cone is tried with
N_FIRST = 0.25  # of the scores are usually measured if the filters come first
N_VALIDATED, N_BATCH, N_SAMPLED, N_CHOSEN_BY = (
    CONES.options[name] for name in ("n_validation", "n_prompts", "n_samples", "n_chosen_by")
)
_ARDITI = arditi_selection.OPTIONS


def searches(scene: Scene) -> list[Loop]:
    """Arditi's selection and COSMIC, on the draw."""
    n_val, model = scene["N_VALIDATION"], scene.model
    halves = [
        [reading_half(side, options["n_train"]) for side in _sides(scene)] for options in (_ARDITI, cosmic.OPTIONS)
    ]
    n_own = sum(min(N_ASKED, len(half)) for half in halves[0])
    n_read = [sum(map(len, half)) for half in halves]
    profile = [Loop("capture_activations", n) for n in n_read] if model.layers_read < model.n_layers else []
    return [
        Loop("generate", n_own, new_tokens=N_TOKENS),
        *profile,
        *_arditi(scene, n_val),
        Loop("capture_activations", n_read[1]),
        Loop("first_token_logits", n_val, is_exact=False),
        Loop("cosmic", n_val, 2 + 2 * _n_places(scene), is_exact=False),
        Loop("cosmic", n_val, _n_places(scene), below=0.5, is_exact=False),
    ]


def _arditi(scene: Scene, n_val: int, measured: float = 1.0) -> list[Loop]:
    """The filter and the three scores of Arditi's selection; `measured`: the share of the places that get them."""
    refused, answered = (min(n_val, n) for n in _spare(scene, n_val))
    return [
        Loop("arditi_selection", _n_filtered(scene, n_val)),
        Loop("first_token_logits", answered, is_exact=False),
        Loop("arditi_selection", answered, measured * _n_places(scene), below=0.5, is_exact=False),
        Loop("arditi_selection", refused + answered, measured * _n_places(scene), is_exact=False),
    ]


def _n_places(scene: Scene) -> int:
    """Layers times positions; at layer 0 the means coincide."""
    return (scene.model.n_layers - 1) * scene.model.n_positions


def _spare(scene: Scene, n_val: int) -> list[int]:
    """Prompts of each side that no direction is read from, and that are kept for validation."""
    return [min(len(side) - len(reading_half(side, _ARDITI["n_train"])), max(N_ASKED, n_val)) for side in _sides(scene)]


def _n_filtered(scene: Scene, n_val: int) -> int:
    """The prompts whose refusal score decides whether they are used."""
    return sum(len(reading_half(side, _ARDITI["n_train"])) for side in _sides(scene)) + sum(_spare(scene, n_val))


def _sides(scene: Scene) -> list[pd.DataFrame]:
    return [scene.draw[scene.draw["category"].isin(kinds)] for kinds in (POLICY, ("benign",))]


def training(scene: Scene) -> list[Loop]:
    """A trained direction and cones of higher dimension: the place, targets, updates with gradients, and checks."""
    n_train, n_updates, k = (
        [len(reading_half(side, 128)) for side in _sides(scene)],
        scene["N_UPDATES"],
        scene["CONE_K"],
    )
    refused, answered = (min(N_VALIDATED, n) for n in _spare(scene, N_VALIDATED))
    scored, n_last, n_filtered = refused + 2 * answered, min(N_LAST, n_updates), _n_filtered(scene, N_VALIDATED)
    ranks = range(2, k + 1)
    usual: dict[str, Any] = {"is_exact": False}
    updated = {**usual, "depth": GRADIENT}
    checked = 1 + sum(N_SAMPLED + rank + -(-n_last // STRIDE) * (N_CHOSEN_BY + rank) for rank in ranks)
    return [
        *(_arditi(scene, N_VALIDATED, N_FIRST) if scene.is_bundled else []),
        Loop("generate", n_train[0], new_tokens=N_ANSWER, **usual),
        Loop("generate", n_train[1], new_tokens=N_ANSWER, **usual),
        Loop("generate", n_train[1], new_tokens=N_RETAINED, **usual),
        Loop("rdo", 3 * N_BATCH, n_updates, **updated),
        Loop("cones", 3 * N_BATCH * N_MIXED, n_updates * (k - 1), **updated),
        Loop("rdo", n_filtered + 2 * n_last * scored, **usual),
        Loop("cones", n_filtered + checked * scored, **usual),
    ]
