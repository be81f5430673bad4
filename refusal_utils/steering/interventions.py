"""Interventions on a chat model as values: what is done, where, and to which tokens. Nothing here runs a model."""

import operator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from jaxtyping import Float
from torch import Tensor

from ..checks import invalid, require
from ..directions.ablation import require_unit
from ..directions.estimation import require_finite
from ..model.chat_model import ChatModel, check_positions

Tokens = Literal["all", "prompt", "generation"]


@dataclass(frozen=True, eq=False)
class Addition:
    """x <- x + vector at `resid_pre` of each of `layers`. Source: Joad et al. 2602.02132, induction.

    `vector` is coefficient * direction. `every` selects the tokens whose position, counted from the first token of the
    prompt, is a multiple of it. `keep_norm` rescales x + vector to the norm of x.
    """

    vector: Float[Tensor, " d_model"]
    layers: tuple[int, ...]
    tokens: Tokens = "all"
    every: int = 1
    keep_norm: bool = False


@dataclass(frozen=True, eq=False)
class Ablation:
    """x <- x - (x . r) r for the unit `directions`: their whole span is removed.

    Without `layers` the edit applies to everything written to the residual stream, so nothing is left along r at any
    layer (Arditi et al. 2406.11717, eq. 4); with them, at `resid_pre` of those layers only. With `reference` the
    stream keeps the reference's component in the span (affine ablation, Marshall et al. 2411.09003).
    """

    directions: Float[Tensor, "rank d_model"]
    layers: tuple[int, ...] | None = None
    reference: Float[Tensor, " d_model"] | None = None
    tokens: Tokens = "all"
    every: int = 1


@dataclass(frozen=True, eq=False)
class SequentialAblation(Ablation):
    """x <- x - (x . r) r for one of the unit `directions` after the other, as rank-1 edits of the weights do.

    Unless the directions are orthogonal, removing a later one puts part of an earlier one back: the order matters, and
    less is removed than the span. Biases are edited too, which edits of weight matrices leave alone.
    Source: Piras et al. 2511.08379, section 3 (several directions).
    """


@dataclass(frozen=True, eq=False)
class PartialAblation(Ablation):
    """x <- x - share (x . r) r for the unit `directions`: a share of what lies in their span is removed.

    Without `layers` it applies to everything written to the stream, of which 1 - share is left along r at any layer. A
    `share` of 1 is the ablation, and of 0 nothing. Several in one condition each remove their share of what was there.
    """

    share: float = 1.0


@dataclass(frozen=True, eq=False)
class HeadReplacement:
    """z of each of `heads` (layer, head_index) at `positions`, counted from the end of the prompt, becomes `values`.

    Means over other prompts give mean ablation, values from another prompt give patching. Generated tokens are never
    edited.
    """

    heads: tuple[tuple[int, int], ...]
    positions: tuple[int, ...]
    values: Float[Tensor, "replaced_head_index pos d_head"]


@dataclass(frozen=True, eq=False)
class LatentClamp:
    """x <- x + share * sum_j (target_j - z_j(x)) w_dec_j at `resid_pre` of `layers`: latents are set to `targets`.

    What the latents do not explain of x is kept. A latent whose target is NaN is left alone. z_j is the pre-activation
    x w_enc_j + b_enc_j if that is above 0 and above its threshold or, with `k`, among the k largest of x; else it is 0.
    `SparseAutoencoder.clamp` makes one. Source: Joad et al. 2602.02132, section 5 (necessity: targets of 0).
    """

    w_enc: Float[Tensor, "d_model latent"]
    b_enc: Float[Tensor, " latent"]
    w_dec: Float[Tensor, "latent d_model"]
    targets: Float[Tensor, " latent"]
    layers: tuple[int, ...]
    threshold: Float[Tensor, " latent"] | None = None
    k: int | None = None
    share: float = 1.0
    tokens: Tokens = "all"
    every: int = 1


Intervention = Addition | Ablation | HeadReplacement | LatentClamp


def first_edited_layer(intervention: Intervention, n_layers: int) -> int:
    """The first of the model's `n_layers` layers whose activations the intervention can change."""
    if isinstance(intervention, HeadReplacement):
        return min(layer for layer, _ in intervention.heads)
    return 0 if intervention.layers is None else int(min(layer % n_layers for layer in intervention.layers))


def require_fit(chat: ChatModel, intervention: Intervention) -> None:
    """Raise `ValueError` unless `intervention` can be applied to `chat`."""
    if isinstance(intervention, HeadReplacement):
        _require_heads(chat, intervention)
        return
    _require_layers(chat, intervention)
    every, tokens = intervention.every, intervention.tokens
    require(isinstance(every, int), "intervene", "every must be a whole number", repr(every), "Use 1 for all.")
    require(every >= 1, "intervene", "every must be at least 1", every, "Use 1 for all.")
    must, todo = f"tokens must be one of {', '.join(get_args(Tokens))}", "Leave it out for all tokens."
    require(tokens in get_args(Tokens), "intervene", must, repr(tokens), todo)
    if isinstance(intervention, LatentClamp):
        _require_latents(chat, intervention)
        return
    vectors = [intervention.vector] if isinstance(intervention, Addition) else [intervention.directions]
    if isinstance(intervention, Ablation) and intervention.reference is not None:
        vectors.append(intervention.reference)
    n_axes = 1 if isinstance(intervention, Addition) else 2
    must, todo = f"the width must be that of {chat.name}, {chat.d_model}", "Take both from the same model."
    for vector, n in zip(vectors, (n_axes, 1), strict=False):
        is_shaped, shape = isinstance(vector, Tensor) and vector.ndim == n, ["[d_model]", "[rank, d_model]"][n - 1]
        got = f"{type(vector).__name__} of shape {list(getattr(vector, 'shape', ()))}"
        require(is_shaped, "intervene", f"it must be a tensor {shape}", got, "Use torch.as_tensor and reshape.")
        require(vector.shape[-1] == chat.d_model, "intervene", must, vector.shape[-1], todo)
        require_finite("intervene", vector, "a vector")
    if isinstance(intervention, PartialAblation):
        must, todo = "the share must be from 0 to 1", "1 removes all."
        require(0 <= intervention.share <= 1, "intervene", must, intervention.share, todo)
    if isinstance(intervention, Ablation):
        n_directions, must = len(intervention.directions), "an Ablation needs at least one direction"
        require(n_directions > 0, "intervene", must, "none", "Pass [rank, d_model] with rank >= 1.")
        require_unit("intervene", intervention.directions)


def _require_latents(chat: ChatModel, clamp: LatentClamp) -> None:
    _require_layers(chat, clamp)
    must, todo = f"the width must be that of {chat.name}, {chat.d_model}", "Take both from the same model."
    require(len(clamp.w_enc) == chat.d_model, "intervene", must, len(clamp.w_enc), todo)
    must, got = "latents need either thresholds or k", f"{clamp.threshold is not None} and {clamp.k}"
    require((clamp.threshold is None) != (clamp.k is None), "intervene", must, got, "Pass one of them.")
    for weights in (clamp.w_enc, clamp.b_enc, clamp.w_dec):
        require_finite("intervene", weights, "a weight")


def _require_layers(chat: ChatModel, intervention: Addition | Ablation | LatentClamp) -> None:
    layers, kind = intervention.layers, f"in an {type(intervention).__name__}"
    if layers is None and isinstance(intervention, Ablation):
        must = "everything that writes to the residual stream must be known to ablate a direction from all of it"
        got = f"{type(chat.bridge.original_model).__name__}, where part of the direction is left"
        require(bool(chat.writes), "intervene", must, got, "Name the layers of the Ablation.")
        return
    must, todo = "layers must be a list of whole numbers", "Write (3,) for layer 3."
    try:
        given = () if layers is None else tuple(layers)
        numbers = [operator.index(layer) for layer in given]
        if any(isinstance(layer, bool) for layer in given):
            raise TypeError
    except TypeError as error:
        raise invalid("intervene", must, f"{layers!r} {kind}", todo) from error
    todo = "Name a layer; an Ablation without layers edits everything written to the stream."
    require(len(numbers) > 0, "intervene", "layers must name at least one layer", f"{layers!r} {kind}", todo)
    must, todo = f"the layer must be one of 0 to {chat.n_layers - 1}", "Count from 0, or from -1 for the last."
    for layer in numbers:
        require(-chat.n_layers <= layer < chat.n_layers, "intervene", must, f"{layer} {kind}", todo)


def _require_heads(chat: ChatModel, replacement: HeadReplacement) -> None:
    model: Any = chat.bridge.original_model
    n_heads, shape = model.config.get_text_config().num_attention_heads, tuple(replacement.values.shape[:2])
    wrong = [head for head in replacement.heads if not (0 <= head[0] < chat.n_layers and 0 <= head[1] < n_heads)]
    must = f"a head must be one of {chat.n_layers} layers x {n_heads} heads"
    require(not wrong, "intervene", must, wrong[:1], "Count from 0.")
    given = (len(replacement.heads), len(replacement.positions))
    must = f"values must be given for {given[0]} heads at {given[1]} positions"
    require(shape == given, "intervene", must, shape, "Pass [head_index, pos, d_head].")
    check_positions("intervene", chat, replacement.positions)
