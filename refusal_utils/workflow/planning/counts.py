"""How many rows every notebook runs through the model, as functions of a run's parameters.

A test compares these counts with the record of a real run, loop by loop, so that they cannot drift from the notebooks.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ...heads.refusal_opening import N_PUSHED
from ...notebooks import find_notebooks, read_title
from ...paper.tables import published_alphas
from ...steering import places
from ...steering.places import reading_half
from ...tradeoff import choose_gaps
from .counts_of_methods import cones, languages, latents, methods, refusal_tokens, what_changed
from .scene import LABEL, Loop, Scene, train_twins, unseen_twins, widened

N_OPENING = 8  # sides whose refusals usually begin with the opening tokens, the benign one included
N_WIDENED = 64  # prompts a category that notebooks 03 and 04 measure stability with
MATCHING_ROUNDS = 3.0  # of the search for equal refusal rates, as a mean over directions; at most 6
_N_VARIANTS = 6  # of `steering_variants` besides the neighbouring layers, which depend on the model
USUAL_PROBES = 2 * places.N_AT_ONCE  # prompts a side that are asked to find 16 that are refused, or answered


def count_rows_of(scene: Scene, numbers: Sequence[str]) -> dict[str, list[Loop]]:
    """The loops of the notebooks with these numbers; empty ones are left out.

    What several notebooks need is counted for the first that runs: those that others need come first.
    """
    needed = {each for path in find_notebooks(numbers) for each in read_title(path).earlier}
    order = sorted(numbers, key=lambda number: (number not in needed, number))
    found = {number: [loop for loop in COUNTS[number](scene) if loop.rows] for number in order}
    return {number: found[number] for number in numbers}


def draw_of_prompts(scene: Scene) -> list[Loop]:
    """Notebook 01: a model is asked only if prompts are selected by its behaviour."""
    if scene["SELECT_BY"] in (LABEL, "published"):
        return []
    n = int((scene.study.prompts["split"] == "train").sum())
    return [Loop("generate", n, new_tokens=scene["MAX_NEW_TOKENS"])]


def cached_activations(scene: Scene) -> list[Loop]:
    """Notebook 02: the search for the decision state, if it is not known, and the activations of the draw."""
    return [*_place_search(scene), *scene.capture(scene.draw["text"])]


def geometry(scene: Scene) -> list[Loop]:
    """Notebook 03: the prompts that top up the draw."""
    return scene.capture(widened(scene.study, N_WIDENED)["text"])


def confounds(scene: Scene) -> list[Loop]:
    """Notebook 04: twins of the train split, and responses and activations of the pool."""
    pairs = train_twins()
    pairs = pairs[pairs["category"].isin(scene.draw["category"])]
    twins = [*scene.capture(pairs["text"]), *scene.capture(pairs["twin"])]
    asked = scene.ask_pool()
    # Buckets with fewer than 8 prompts, and broken responses, are not read.
    read = [replace(loop, is_exact=False) for loop in scene.capture(scene.pool["text"])]
    return [*twins, *asked, *read, *scene.capture(widened(scene.study, N_WIDENED)["text"])]


def views(scene: Scene) -> list[Loop]:
    """Notebook 05: held-out prompts of every category."""
    own = scene.pool[scene.pool["category"].isin(scene.draw["category"])].sample(frac=1, random_state=scene["SEED"])
    return [*scene.ask_pool(), *scene.capture(own.groupby("category").head(scene["N_HELD_OUT"])["text"])]


def heads(scene: Scene) -> list[Loop]:
    """Notebook 06: shares of all heads, and what replacing some of them does."""
    unseen = unseen_twins(scene.study)
    twins = unseen[unseen["category"].isin(scene.categories)].groupby("category").head(scene["N_TWINS"])
    n, tokens, model = len(twins), scene["MAX_NEW_TOKENS"], scene.model
    share, n_benign = model.decision_layer / model.n_layers, int((scene.draw["category"] == "benign").sum())
    pushed = N_OPENING * min(N_PUSHED, n_benign)  # as many categories as usually begin with the opening tokens
    asked = scene.ask_pool()
    n_replaced = 2 * (1 + scene["N_RANDOM"])
    n_alone = scene.not_asked(twins["text"])
    scene.asked |= {*twins["text"]}
    n_single = min(scene["N_SINGLE"], model.n_heads * model.decision_layer)
    return [
        *asked,
        Loop("component_shares", len(scene.draw), depth=share),
        Loop("component_shares", pushed, is_exact=False),
        Loop("capture_activations", pushed, is_exact=False),
        Loop("capture_activations", n_benign, depth=share),
        Loop("capture_activations", len({*twins["twin"]}), depth=share),
        Loop("forward_under", n, 1 + n_replaced),
        Loop("generate", n, n_replaced, new_tokens=tokens),
        Loop("generate", n_alone, new_tokens=tokens),
        Loop("states_under", n, 1 + n_single, depth=share),
    ]


def steering(scene: Scene) -> list[Loop]:
    """Notebook 07: the sweep, its costs, ablations, variants of the steering, and equal refusal rates."""
    gaps, control_gaps = choose_gaps(scene["MODEL"], scene["GAPS"], scene["CONTROL_GAPS"])
    alphas = published_alphas(scene["MODEL"]) if scene["ALPHAS"] is None else scene["ALPHAS"]
    n, tokens, layer = scene.n_bucketed(scene["N_BUCKET"]), scene["MAX_NEW_TOKENS"], scene.model.decision_layer
    eleven, below = len(scene.categories) + 1, layer / scene.model.n_layers  # and the pooled direction
    n_steered = eleven * (len(_nonzero(gaps)) + len(_nonzero(alphas))) + 2 * scene["N_CONTROLS"] * len(
        _nonzero(control_gaps)
    )
    neighbours = [each for each in (layer - 1, layer + 1) if 0 < each < scene.model.n_layers]
    n_variants = _N_VARIANTS + len(neighbours) - (1.0 in gaps)
    return [
        *scene.ask_pool(),
        Loop("generate", n, n_steered, new_tokens=tokens, below=below, is_exact=False),
        Loop("generate", n, eleven, new_tokens=tokens, is_exact=False),
        Loop("first_token_logits", n // 4, is_exact=False),
        Loop("kl_spent", n // 4, n_steered + 1, below=below, is_exact=False),
        Loop("generate", n, n_variants, new_tokens=tokens, below=below, is_exact=False),
        Loop("generate", n, (eleven - 1) * MATCHING_ROUNDS, new_tokens=tokens, below=below, is_exact=False),
    ]


def styles(scene: Scene) -> list[Loop]:
    """Notebook 08 reads responses and loads no model."""
    return []


def _nonzero(strengths: Sequence[float]) -> list[float]:
    """Strength 0 is the unsteered model, whose responses are known."""
    return [each for each in strengths if each]


def _place_search(scene: Scene) -> list[Loop]:
    """The causal choice of the decision state: probes, screening, and the best quarter in detail."""
    n_places, model = scene.model.n_searched, scene.model
    if not n_places:
        return []
    train = scene.study.prompts.query("split == 'train'").sample(frac=1, random_state=0)
    halves = [reading_half(train[train["category"].isin(kinds)]) for kinds in (places.POLICY, ("benign",))]
    n_best = min(n_places, max(places.N_FINALISTS, n_places // 4))
    few, many, strengths = places.N_SCREENED, places.N_PROBE, len(places.GAPS)
    n_screened = 0 if n_best == n_places else n_places
    known = few * n_best if n_screened else 0  # the finalists were screened with the same prompts
    how: dict[str, Any] = {"new_tokens": places.N_TOKENS, "is_exact": False}
    return [
        Loop("generate", USUAL_PROBES, 2, **how),
        Loop("capture_activations", sum(map(len, halves)), depth=(model.n_layers - 1) / model.n_layers),
        Loop("generate", few, n_screened, **how),
        Loop("generate", few, n_screened, below=0.5, **how),
        Loop("generate", many * n_best - known, **how),
        Loop("generate", many * n_best * strengths - known, **how),
    ]


COUNTS: dict[str, Callable[[Scene], list[Loop]]] = {
    "01": draw_of_prompts,
    "02": cached_activations,
    "03": geometry,
    "04": confounds,
    "05": views,
    "06": heads,
    "07": steering,
    "08": styles,
    "09": methods,
    "10": languages,
    "11": cones,
    "12": refusal_tokens,
    "13": what_changed,
    "14": latents,
}
