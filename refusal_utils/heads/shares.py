"""What every attention head, MLP, bias and the embedding writes along a set of directions, exactly.

The residual stream is the sum of what was written to it, so its projection on a direction is a sum of shares. Source:
Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..checks import require, require_finite
from ..model.batching import in_order, plan_batches, run_batches, token_budget
from ..model.capture import capture_activations
from ..model.chat_model import ChatModel, check_positions
from ..model.forward import read_hooks
from .folded_block import FoldedBlock


@dataclass(frozen=True, eq=False)
class Shares:
    """What each component writes along each direction at one position, before block `layer`, for every prompt.

    In units of the residual stream. `heads` + `mlps` + `attn_biases` + `mlp_biases` + `embedding` = `total`. The two
    biases belong to the output matrices; a bias on values counts as part of what its head writes.
    """

    heads: Float[Tensor, "prompt layer head_index category"] = field(repr=False)
    mlps: Float[Tensor, "prompt layer category"] = field(repr=False)
    attn_biases: Float[Tensor, "prompt layer category"] = field(repr=False)
    mlp_biases: Float[Tensor, "prompt layer category"] = field(repr=False)
    embedding: Float[Tensor, "prompt category"] = field(repr=False)
    total: Float[Tensor, "prompt category"] = field(repr=False)

    def parts(self) -> dict[str, Float[Tensor, "prompt category"]]:
        """The sums over all heads, all MLPs and all biases, and the embedding's share; together they equal `total`."""
        biases = (self.attn_biases + self.mlp_biases).sum(1)
        sums = {"heads": self.heads.sum((1, 2)), "MLPs": self.mlps.sum(1)}
        return {**sums, "biases": biases, "embedding": self.embedding}

    def scaled(self, scale: Float[Tensor, " prompt"]) -> "Shares":
        """Every prompt's shares multiplied by its own number, such as the frozen scale of the final norm."""
        values = (getattr(self, each.name) for each in fields(self))
        return Shares(*(value * scale.view(-1, *[1] * (value.ndim - 1)) for value in values))


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
    names = {"first": chat.hook_name("resid_pre", 0), "total": _stream_before(chat, layer)}
    ids = chat.encode(prompts)

    def step(rows: list[int]) -> tuple[Tensor, ...]:
        reads = [names["first"], *(name for block in blocks for name in block.reads), names["total"]]
        kept = read_hooks(chat, chat.pad([ids[row] for row in rows]), reads, lambda _, value: value[:, pos].clone())
        _check_finite_rows(kept, rows)
        written = [torch.stack(own, dim=1) for own in zip(*(block.shares(kept) for block in blocks), strict=True)]
        stream = (kept[name].float() for name in names.values())
        return *written, *((state @ directions.to(state).T).cpu() for state in stream)

    batches = plan_batches(ids, token_budget("component_shares", batch_tokens, chat.device))
    found = Shares(*in_order(run_batches("component_shares", batches, step)))
    _check_sum(chat, found)
    return found


def logit_shares(
    chat: ChatModel, prompts: Sequence[str], tokens: Int[Tensor, " token"], *, batch_tokens: int | None = None
) -> Shares:
    """What each component adds to the first token's mean logit over `tokens`, relative to the mean over the vocabulary.

    In logits, before any soft cap, with the final norm's scale frozen per prompt. The last axis has size 1. Raises
    `ValueError` as `component_shares` does, and if the final norm is not an RMS norm. Source: direct logit attribution,
    nostalgebraist 2020; Elhage et al. 2021.
    """
    model: Any = chat.bridge.original_model
    norm: Any = chat.bridge.ln_final.original_component
    weight = model.get_output_embeddings().weight.detach()
    with torch.inference_mode():
        gain = norm(torch.ones(1, 1, chat.d_model, dtype=chat.dtype, device=weight.device))[0, 0].float().cpu()
    unembed = weight.float().cpu()
    towards = (unembed[tokens].mean(0) - unembed.mean(0)) * gain
    last = chat.n_layers
    shares = component_shares(chat, prompts, towards[None], layer=last, pos=-1, batch_tokens=batch_tokens)
    states = capture_activations(chat, prompts, layers=[last - 1], positions=[-1], hook="resid_post").values[:, 0, 0]
    with torch.inference_mode():
        after = norm(states[:, None].to(weight.device, chat.dtype))[:, 0].float().cpu()
    passed = states.float() * gain
    scale = (passed * after).sum(-1) / passed.square().sum(-1).clamp(min=1e-30)
    require(
        float((passed * scale[:, None] - after).norm()) <= 1e-2 * float(after.norm()),
        "logit_shares",
        "the final norm must be an RMS norm",
        f"{type(norm).__name__} in {chat.name}",
        "Use component_shares along a direction instead.",
    )
    return shares.scaled(scale)


def _stream_before(chat: ChatModel, layer: int) -> str:
    """The hook where everything below block `layer` has been written."""
    return chat.hook_name("resid_pre", layer) if layer < chat.n_layers else chat.hook_name("resid_post", layer - 1)


def _check_request(chat: ChatModel, directions: Tensor, layer: int, pos: int) -> None:
    function, width = "component_shares", directions.shape[-1]
    check_positions(function, chat, (pos,))
    must = f"directions must have the width of {chat.name}, {chat.d_model}"
    require(width == chat.d_model, function, must, width, "Take directions and model from the same place.")
    must = f"the layer must be one of 1 to {chat.n_layers}"
    require(1 <= layer <= chat.n_layers, function, must, layer, "Nothing is written before layer 0.")
    require_finite(function, directions, "directions")


def _check_finite_rows(kept: dict[str, Tensor], rows: list[int]) -> None:
    for name, value in kept.items():
        bad = (~torch.isfinite(value)).flatten(1).any(1).nonzero()
        require(
            not len(bad),
            "component_shares",
            "activations must be finite",
            f"NaN or inf for prompt {rows[int(bad[0])] if len(bad) else ''} at {name}",
            "Load the model in bfloat16 or float32 (in a notebook: DTYPE).",
        )


def _check_sum(chat: ChatModel, shares: Shares) -> None:
    gap = float((torch.stack([*shares.parts().values()]).sum(0) - shares.total).abs().max())
    size = max(float(each.abs().max()) for each in (shares.total, shares.mlps, shares.heads))
    require(
        gap <= tolerance(chat.dtype) * size,
        "component_shares",
        "the shares must sum to the projection",
        f"a gap of {gap:.2g}, the largest share being {size:.2g}, in {type(chat.bridge.original_model).__name__}",
        "Its blocks write to the stream in another way.",
    )
