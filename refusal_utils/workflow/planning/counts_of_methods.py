"""How many rows notebooks 09 to 14 run through the model: methods, languages, cones, first tokens, edits, latents."""

from typing import Any

from ...bundled.trained import SHIPPED
from ...methods import METHODS
from ...prompts import contrast_pairs
from ...prompts.categories import CATEGORY_IDS
from ...tradeoff import choose_gaps
from ...tradeoff.equal_cost import FIRST
from .counts_of_searches import searches, training
from .scene import Loop, Scene, instructed, n_suffixes, parallel_prompts

N_COST, N_COST_LATENTS = 32, 16  # benign prompts on which costs are measured, in notebooks 09 and 11, and in 14
REFINED = {"added": 2.0, "ablated": 0.5}  # strengths tried for a budget after the first ones; many ablations end first
LANGUAGE_TOKENS, N_KNOWN = 24, 8  # tokens of a response in notebook 10; prompts of a kind in notebook 12
PARTS = 7  # that notebook 14 sets to zero, besides nothing
SAE_KINDS = 6  # random controls of the SAE directions


def methods(scene: Scene) -> list[Loop]:
    """Notebook 09: two searches for a place, additions and ablations at equal cost, recognition, cross effects."""
    found = [name for name, each in METHODS.items() if not each.trains]
    n, tokens = scene.n_bucketed(scene["N_COMPARED"]), scene["MAX_NEW_TOKENS"]
    probes, eleven = len(scene.categories) * max(1, scene["N_COMPARED"] // 2), len(scene.categories)
    n_cost, refined = _n_cost(scene, N_COST), REFINED["ablated"]
    first = 1 + sum(strength < 1 for strength in FIRST)
    return [
        *searches(scene),
        *scene.ask_pool(),
        *_at_equal_cost(scene, len(found) + 4, n, n_cost),
        Loop("steered_states", n, 1 + len(found) + 2, is_exact=False),
        Loop("first_token_logits", n_cost, 4, is_exact=False),
        Loop("kl_spent", n_cost, eleven * (1 + first + refined), is_exact=False),
        Loop("generate", probes, eleven, new_tokens=tokens, is_exact=False),
    ]


def languages(scene: Scene) -> list[Loop]:
    """Notebook 10: every language's direction on every language's prompts, and the push of suffixes."""
    known = ("en", "de") if scene.is_bundled and scene["LANGUAGES"] == "builtin" else None
    asked = parallel_prompts(scene["LANGUAGES"], known)
    n, n_directions = len(asked), asked["language"].nunique() + 1
    share = (scene.model.decision_layer + 1) / scene.model.n_layers
    pool = scene.ask_pool()
    kinds = scene.pool.groupby("category").size().clip(upper=scene["N_SUFFIXED"])
    texts = int(kinds.sum()) * (1 + n_suffixes(scene["SUFFIXES"]))
    return [
        Loop("capture_activations", n, depth=share),
        Loop("generate", n, new_tokens=LANGUAGE_TOKENS),
        Loop("generate", n, n_directions, new_tokens=LANGUAGE_TOKENS),
        Loop("refusal_scores", n, 1 + n_directions, is_exact=False),  # languages without an opening token have none
        *pool,
        Loop("capture_activations", texts, depth=share),
        Loop("refusal_scores", texts, is_exact=False),
    ]


def cones(scene: Scene) -> list[Loop]:
    """Notebook 11: training, unless its result is shipped, profiles under ablations, and equal cost."""
    n, asked = scene.n_bucketed(scene["N_COMPARED"]), scene.held_out(scene["N_COMPARED"] // 4)
    n_asked, n_directions = int((asked["category"] != "benign").sum()), len(scene.categories) + 5
    return [
        *([] if _is_shipped(scene) else training(scene)),
        Loop("independent", n_asked, 1 + n_directions),
        *scene.ask_pool(),
        *_at_equal_cost(scene, 2, n, _n_cost(scene, N_COST)),
    ]


def refusal_tokens(scene: Scene) -> list[Loop]:
    """Notebook 12: responses after forced first tokens, on the model with control tokens and on the model itself."""
    pairs = len(contrast_pairs(scene.held_out(), scene["N_PAIRS"], scene["SEED"]))
    gaps, _ = choose_gaps("bundled-tokens" if scene.is_bundled else scene["MODEL"], scene["GAPS"])
    tokens, other = scene["MAX_NEW_TOKENS"], scene.is_bundled or scene["TOKENS_MODEL"] is not None
    n_strengths = len([each for each in gaps if each]) + 2
    opening = int(scene.draw["category"].value_counts().clip(upper=N_KNOWN).sum())
    forced = [Loop("force_first_tokens", pairs), Loop("generate", pairs, 2, new_tokens=tokens)]
    below = scene.model.decision_layer / scene.model.n_layers
    return [
        *forced,
        *(scene_of_other(scene) if other else []),
        Loop("generate", pairs, n_strengths + other, new_tokens=tokens, below=below, is_exact=False),
        Loop("generate", opening, new_tokens=tokens),
        *(forced if other else [Loop("force_first_tokens", pairs)]),
    ]


def scene_of_other(scene: Scene) -> list[Loop]:
    """The activations of the draw on the model with control tokens."""
    return [Loop("capture_activations", len({*scene.draw["text"]}))]


def what_changed(scene: Scene) -> list[Loop]:
    """Notebook 13: an audit of two models, and refusals that a system prompt orders."""
    train, tokens = scene.study.prompts.query("split == 'train'"), scene["MAX_NEW_TOKENS"]
    sizes = train["category"].value_counts()
    n_read = min(16, int(sizes.min())) * int(sizes.index.isin([*CATEGORY_IDS, "benign"]).sum())
    questions, few = instructed("eval"), max(0, scene["N_COMPARED"] // 4)
    n_few = len(questions.groupby(["system", "on_topic"]).head(few))
    own = scene.held_out().query("category != 'benign'").groupby("category").head(scene["N_COMPARED"] // 2)
    share = (scene.model.decision_layer + 1) / scene.model.n_layers
    return [
        Loop("capture_activations", n_read, 2),
        Loop("capture_activations", len(instructed("train")), depth=share),
        Loop("generate", len(questions), 3, new_tokens=tokens),
        Loop("generate", len(own), 2, new_tokens=tokens),
        Loop("generate", scene.not_asked(own["text"]), new_tokens=tokens),
        Loop("generate", n_few, len(scene.categories) + 2, new_tokens=tokens),
    ]


def latents(scene: Scene) -> list[Loop]:
    """Notebook 14: quality of the autoencoder, steering along latents at equal cost, and clamping."""
    half, tokens = max(1, scene["N_COMPARED"] // 2), scene["MAX_NEW_TOKENS"]
    held, n = scene.held_out(half), scene.n_bucketed(half)
    pool, eleven, n_cost = scene.ask_pool(), len(scene.categories), _n_cost(scene, N_COST_LATENTS)
    n_dials, n_latents = 2 * eleven + SAE_KINDS + 1, 3 * eleven
    below = scene.model.decision_layer / scene.model.n_layers  # what is steered along latents is added there
    own = [] if scene.is_bundled or scene["SAE"] is not None else _trained_sae(scene, len(held))
    usual: dict[str, Any] = {"is_exact": False}
    return [
        *own,
        *pool,
        Loop("generate", scene.not_asked(held["text"]), new_tokens=tokens),
        Loop("token_states", len(held)),
        Loop("token_states", len(scene.draw)),  # the prompts that the cards quote
        Loop("sae_quality", len(held), 3),
        Loop("first_token_logits", n_cost, 8, **usual),
        Loop("kl_spent", n_cost, (n_dials + n_latents) * (len(FIRST) + REFINED["added"]), below=below, **usual),
        Loop("generate", n, n_dials, new_tokens=tokens, below=below, **usual),
        Loop("generate", half * eleven, PARTS, new_tokens=tokens, **usual),
        Loop("capture_activations", len(held), **usual),  # fewer if other notebooks have captured some of them
        Loop("refusal_scores", n_cost, 1 + n_latents, **usual),
    ]


def _at_equal_cost(scene: Scene, n_dials: int, n: int, n_cost: int) -> list[Loop]:
    """`cost_curves`: the strengths that spend each budget, added and ablated, and the responses there."""
    usual: dict[str, Any] = {"is_exact": False}
    below = scene.model.decision_layer / scene.model.n_layers
    n_budgets, tokens = len(scene["BUDGETS"]), scene["MAX_NEW_TOKENS"]
    n_ablated = 1 + sum(strength < 1 for strength in FIRST) + n_budgets * REFINED["ablated"]
    n_added = len(FIRST) + n_budgets * REFINED["added"]
    return [
        Loop("first_token_logits", n_cost, 8, **usual),
        Loop("kl_spent", n_cost, n_dials * n_ablated, **usual),
        Loop("kl_spent", n_cost, n_dials * n_added, below=below, **usual),
        Loop("generate", n, n_dials * n_budgets, new_tokens=tokens, below=below, **usual),
        Loop("generate", n, n_dials * (n_budgets - 1), new_tokens=tokens, **usual),  # many spend all of the last budget
    ]


def _n_cost(scene: Scene, n: int) -> int:
    return min(n, int((scene.pool["category"] == "benign").sum()))


def _is_shipped(scene: Scene) -> bool:
    """Whether the trained directions come with the package: those of the bundled model at the default parameters."""
    is_default = scene["N_PROMPTS"] == 96 and scene["SELECT_BY"] == "label" and scene["N_UPDATES"] == 74
    return scene.is_bundled and is_default and scene["CONE_K"] == SHIPPED["cones"]["k"] and scene["SEED"] == 0


def _trained_sae(scene: Scene, n_held: int) -> list[Loop]:
    """An autoencoder trained on responses to train prompts, and measured on `n_held` others."""
    train, n = scene.study.prompts.query("split == 'train'"), scene["N_TRAINED"]
    texts = {*(train if n is None else train.groupby("category").head(n))["text"]}
    return [
        Loop("generate", scene.not_asked(texts), new_tokens=scene["MAX_NEW_TOKENS"], is_exact=False),
        Loop("token_states", len(texts) + n_held),
        Loop("sae_quality", n_held, 3),
    ]
