"""What every attention head, MLP, bias and the embedding writes along a set of directions, exactly.

The residual stream is the sum of what was written to it, so its projection on a direction is a sum of shares. Source:
Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..checks import invalid, require
from ..directions.estimation import require_finite
from ..model.batching import in_order, plan_batches, run_batches, token_budget
from ..model.capture import capture_activations
from ..model.chat_model import ChatModel, check_positions
from ..model.common_tokens import CommonTokens
from ..model.forward import read_hooks
from ..model.open_hooks import require_no_hooks
from .folded_block import MOST_ERROR, FoldedBlock, frozen_scale, norm_gain

_FUNCTION = "component_shares"


@dataclass(frozen=True, eq=False)
class Shares:
    """What each component writes along each direction at one position, before block `layer`, for every prompt.

    In units of the residual stream. `heads` + `mlps` + `biases` + `embedding` = `total`. The biases are those of the
    output matrices; a bias on values counts as part of what its head writes.
    """

    heads: Float[Tensor, "prompt layer head_index category"] = field(repr=False)
    mlps: Float[Tensor, "prompt layer category"] = field(repr=False)
    biases: Float[Tensor, "prompt layer category"] = field(repr=False)
    embedding: Float[Tensor, "prompt category"] = field(repr=False)
    total: Float[Tensor, "prompt category"] = field(repr=False)

    def parts(self) -> dict[str, Float[Tensor, "prompt category"]]:
        """The sums over all heads, all MLPs and all biases, and the embedding's share; together they equal `total`."""
        sums = {"heads": self.heads.sum((1, 2)), "MLPs": self.mlps.sum(1), "biases": self.biases.sum(1)}
        return {**sums, "embedding": self.embedding}

    def scaled(self, scale: Float[Tensor, " prompt"]) -> "Shares":
        """Every prompt's shares multiplied by its own number, such as the frozen scale of the final norm."""
        return Shares(*(value * scale.view(-1, *[1] * (value.ndim - 1)) for value in vars(self).values()))


def tolerance(dtype: torch.dtype) -> float:
    """How far the sum of the shares may be from the projection, relative to the largest of them, at a model's dtype.

    >>> tolerance(torch.float32), tolerance(torch.bfloat16)
    (0.0001, 0.05)
    """
    return 1e-4 if dtype == torch.float32 else 0.05


def component_shares(
    chat: ChatModel,
    prompts: Sequence[str],
    directions: Float[Tensor, "category d_model"],
    *,
    layer: int | None = None,
    pos: int | None = None,
    batch_tokens: int | None = None,
) -> Shares:
    """The shares of all components below block `layer` at `pos`, along all directions, in one forward pass per batch.

    `layer` and `pos` default to the decision state; `layer` = n_layers covers the whole model. Directions may have any
    norm. Raises `ValueError` if a width or layer does not fit, if the architecture has no per-head outputs or another
    order of norms, if activations are not finite, and if the shares do not sum to the projection.
    """
    layer, pos = chat.decision_layer if layer is None else layer, chat.decision_pos if pos is None else pos
    _check_request(chat, directions, layer, pos)
    blocks = [FoldedBlock(chat, each, directions) for each in range(layer)]
    ends = (chat.hook_name("resid_pre", 0), chat.hook_name("resid_post", layer - 1))
    reads = [ends[0], *(name for block in blocks for name in block.reads), ends[1]]
    ids = chat.encode(prompts)
    common = CommonTokens(chat, ids, -pos)

    def step(rows: list[int]) -> tuple[Tensor, ...]:
        batch = common.batch([ids[row] for row in rows])
        run = partial(common.forward, batch)
        kept = read_hooks(chat, run, reads, lambda _, value: value[:, pos].clone())
        _check_activations(kept, rows)
        written = [torch.stack(own, dim=1) for own in zip(*(block.shares(kept) for block in blocks), strict=True)]
        stream = (kept[name].float() for name in ends)
        return *written, *((state @ directions.to(state).T).cpu() for state in stream)

    batches = plan_batches(ids, token_budget(_FUNCTION, batch_tokens, chat.device))
    found = Shares(*in_order(run_batches(_FUNCTION, batches, step)))
    must = "no hook may be open, because shares are those of the model's own weights"
    require_no_hooks(_FUNCTION, chat, must, "Close it.")
    _check_sum(chat, found)
    return found


def logit_shares(chat: ChatModel, prompts: Sequence[str], tokens: Int[Tensor, " token"]) -> Shares:
    """What each component adds to the first token's mean logit over `tokens`, relative to the mean over the vocabulary.

    In logits, before any soft cap, with the final norm's scale frozen per prompt. The last axis has size 1. Raises
    `ValueError` as `component_shares` does, and if the final norm is not an RMS norm. Source: direct logit attribution,
    nostalgebraist 2020; Elhage et al. 2021.
    """
    model: Any = chat.bridge.original_model
    norm: Any = chat.bridge.ln_final.original_component
    weight = model.get_output_embeddings().weight.detach()
    gain, unembed = norm_gain(chat, norm, weight.device).cpu(), weight.float().cpu()
    towards = (unembed[tokens].mean(0) - unembed.mean(0)) * gain
    last = chat.n_layers
    shares = component_shares(chat, prompts, towards[None], layer=last, pos=-1)
    states = capture_activations(chat, prompts, layers=[last - 1], positions=[-1], hook="resid_post").values[:, 0, 0]
    with torch.inference_mode():
        after = norm(states[:, None].to(weight.device, chat.dtype))[:, 0].float().cpu()
    scale, error = frozen_scale(states.float(), after, gain)
    got, todo = f"{type(norm).__name__} in {chat.name}", "Use component_shares along a direction instead."
    require(error <= MOST_ERROR, "logit_shares", "the final norm must be an RMS norm", got, todo)
    return shares.scaled(scale)


def _check_request(chat: ChatModel, directions: Tensor, layer: int, pos: int) -> None:
    check_positions(_FUNCTION, chat, (pos,))
    must, width = f"directions must have the width of {chat.name}, {chat.d_model}", directions.shape[-1]
    require(width == chat.d_model, _FUNCTION, must, width, "Take directions and model from the same place.")
    must = f"the layer must be one of 1 to {chat.n_layers}"
    require(1 <= layer <= chat.n_layers, _FUNCTION, must, layer, "Nothing is written before layer 0.")
    require_finite(_FUNCTION, directions, "directions")


def _check_activations(kept: dict[str, Tensor], rows: list[int]) -> None:
    for name, value in kept.items():
        bad = (~torch.isfinite(value)).flatten(1).any(1).nonzero()
        if len(bad):
            got, todo = f"NaN or inf for prompt {rows[int(bad[0])]} at {name}", "Load the model in bfloat16 or float32."
            raise invalid(_FUNCTION, "activations must be finite", got, todo)


def _check_sum(chat: ChatModel, shares: Shares) -> None:
    gap = float((torch.stack([*shares.parts().values()]).sum(0) - shares.total).abs().max())
    size = max(float(each.abs().max()) for each in (shares.total, shares.mlps, shares.heads))
    got = f"a gap of {gap:.2g}, the largest share being {size:.2g}, in {type(chat.bridge.original_model).__name__}"
    todo = "Its blocks write to the stream in another way."
    require(gap <= tolerance(chat.dtype) * size, _FUNCTION, "the shares must sum to the projection", got, todo)
