"""What every attention head, MLP, bias and the embedding writes along refusal directions: exact, and cheap.

The residual stream is a sum of what was written to it, so its projection on a direction is a sum of shares. A head's
share is z . (W_O' r): the directions are folded through the output matrix first, all at once, and what a head writes
is never built at full width. Where a norm follows the attention (Gemma-2, Gemma-3, OLMo-2), its scale is frozen at what
it was for that prompt, which keeps the sum exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.batching import in_order, plan_batches, run_batches, token_budget
from ..model.capture import capture_activations
from ..model.chat_model import ChatModel, check_positions
from ..model.forward import read_hooks


@dataclass(frozen=True, eq=False)
class Shares:
    """What each component writes along each direction at one position, before block `layer`, per prompt.

    In units of the residual stream. `heads` + `mlps` + `attn_biases` + `mlp_biases` + `embedding` = `total`; the two
    biases are those of the output matrices. A bias on values is part of what its head writes.
    """

    heads: Float[Tensor, "prompt layer head_index category"] = field(repr=False)
    mlps: Float[Tensor, "prompt layer category"] = field(repr=False)
    attn_biases: Float[Tensor, "prompt layer category"] = field(repr=False)
    mlp_biases: Float[Tensor, "prompt layer category"] = field(repr=False)
    embedding: Float[Tensor, "prompt category"] = field(repr=False)
    total: Float[Tensor, "prompt category"] = field(repr=False)

    def rows(self, chosen: Any) -> "Shares":
        """The shares of some prompts: an index, mask or slice."""
        return Shares(**{each.name: getattr(self, each.name)[chosen] for each in fields(self)})

    def scaled(self, scale: Float[Tensor, " prompt"]) -> "Shares":
        """Every prompt's shares times a number of its own, such as the frozen scale of the final norm."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return Shares(**{name: value * scale.view(-1, *[1] * (value.ndim - 1)) for name, value in values.items()})

    def sum(self) -> Float[Tensor, "prompt category"]:
        """The sum of all shares; equals `total` up to rounding."""
        by_layer = self.heads.sum(2) + self.mlps + self.attn_biases + self.mlp_biases
        return by_layer.sum(1) + self.embedding


def tolerance(dtype: torch.dtype) -> float:
    """How far shares may be from summing to the whole, relative to the largest of them, in a model of that dtype.

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
    """The shares of all components below block `layer` at `pos`, for all directions, in one forward pass per batch.

    `layer` and `pos` default to the decision state; `layer` = n_layers takes the whole model. Directions need not have
    norm 1. Raises `ValueError` for a width or layer that does not fit, an architecture without per-head outputs or with
    another order of norms, activations that are not finite (prompt and layer named), and shares that do not add up.
    Source: direct attribution, Elhage et al. 2021 ("A Mathematical Framework for Transformer Circuits").
    """
    layer, pos = chat.decision_layer if layer is None else layer, chat.decision_pos if pos is None else pos
    check_positions("component_shares", chat, (pos,))
    _check(chat, directions, layer)
    folded = [_Folded(chat, each, directions.to(chat.device, torch.float32)) for each in range(layer)]
    ids = chat.encode(prompts)
    batches = plan_batches(ids, token_budget("component_shares", batch_tokens, chat.device))

    def step(rows: list[int]) -> tuple[Tensor, ...]:
        return _shares_once(chat, [ids[row] for row in rows], rows, folded, directions, pos)

    whole = Shares(*in_order(run_batches("component_shares", batches, step)))
    _check_sum(chat, whole)
    return whole


def logit_shares(
    chat: ChatModel, prompts: Sequence[str], tokens: Int[Tensor, " token"], *, batch_tokens: int | None = None
) -> Shares:
    """What each component adds to the first token's mean logit over `tokens`, above the mean over the vocabulary.

    In logits, before any soft-cap; the final norm's scale is frozen per prompt. One direction, so the last axis has
    size 1. Raises `ValueError` as `component_shares`, and for a final norm that is no RMS norm. Source: direct logit attribution, nostalgebraist 2020; Elhage et
    al. 2021.
    """
    model: Any = chat.bridge.original_model
    norm: Any = chat.bridge.ln_final.original_component
    unembed = model.get_output_embeddings().weight.detach().float().cpu()
    place = model.get_output_embeddings().weight.device
    with torch.inference_mode():
        gain = norm(torch.ones(1, 1, chat.d_model, device=place, dtype=chat.dtype))[0, 0].float().cpu()
    towards = (unembed[tokens].mean(0) - unembed.mean(0)) * gain
    last = chat.n_layers
    shares = component_shares(chat, prompts, towards[None], layer=last, pos=-1, batch_tokens=batch_tokens)
    states = capture_activations(chat, prompts, layers=[last - 1], positions=[-1], hook="resid_post").values[:, 0, 0]
    with torch.inference_mode():
        after = norm(states[:, None].to(place, chat.dtype))[:, 0].float().cpu()
    passed = states.float() * gain
    scale = (passed * after).sum(-1) / passed.square().sum(-1).clamp(min=1e-30)
    if float((passed * scale[:, None] - after).norm()) > 1e-2 * float(after.norm()):
        raise ValueError(
            f"logit_shares: the final norm must be an RMS norm; got {type(norm).__name__} in {chat.name}. "
            "Use component_shares along a direction instead."
        )
    return shares.scaled(scale)


def _check(chat: ChatModel, directions: Float[Tensor, "category d_model"], layer: int) -> None:
    if directions.shape[-1] != chat.d_model:
        raise ValueError(
            f"component_shares: the width must be that of {chat.name}, {chat.d_model}; got {directions.shape[-1]}. "
            "Take directions and model from the same place."
        )
    if not 1 <= layer <= chat.n_layers:
        raise ValueError(
            f"component_shares: the layer must be one of 1 to {chat.n_layers}; got {layer}. Nothing is written before layer 0."
        )
    if not torch.isfinite(directions).all():
        raise ValueError("component_shares: directions must be finite; got NaN or inf. Estimate them in float32.")


class _Folded:
    """One layer's output matrix with the directions folded through it, and the norm after the attention, if any."""

    def __init__(self, chat: ChatModel, layer: int, directions: Float[Tensor, "category d_model"]) -> None:
        self.layer, self.chat = layer, chat
        block = chat.bridge.blocks[layer]
        architecture = type(chat.bridge.original_model).__name__
        output: Any = getattr(getattr(getattr(block, "attn", None), "o", None), "original_component", None)
        weight = getattr(output, "weight", None)
        if weight is None:
            raise ValueError(
                f"component_shares: the architecture must have per-head outputs; got {architecture}, whose layer {layer} has "
                "no attention output matrix (attn.o). Attribute to whole layers instead."
            )
        self.z_name, self.o_name = f"blocks.{layer}.attn.hook_z", f"blocks.{layer}.attn.o.hook_out"
        for name in (self.z_name, self.o_name):
            if name not in chat.bridge.hook_dict:
                raise ValueError(
                    f"component_shares: the architecture must have per-head outputs; got {architecture} without {name}. "
                    "Attribute to whole layers instead."
                )
        if not weight.is_floating_point() or weight.shape[0] != chat.d_model:
            raise ValueError(
                f"component_shares: weights must not be quantized; got {str(weight.dtype).removeprefix('torch.')} in {chat.name}, "
                f"layer {layer}. Load the model in bfloat16, float16 or float32."
            )
        self.directions, self.weight = directions.to(weight.device), weight.detach().float()
        bias = getattr(output, "bias", None)
        self.bias = torch.zeros(chat.d_model, device=weight.device) if bias is None else bias.detach().float()
        self.gains = [self._gain(getattr(block, name, None)) for name in ("ln1_post", "ln1")]
        down: Any = getattr(getattr(getattr(block, "mlp", None), "out", None), "original_component", None)
        mlp_bias = getattr(down, "bias", None)
        self.mlp_bias = None if mlp_bias is None else mlp_bias.detach().float()
        self.down_name = f"blocks.{layer}.mlp.out.hook_out"
        self.mlp_gains = [self._gain(getattr(block, name, None)) for name in ("ln2_post", "ln2")]
        self.reads = [self.z_name, self.o_name, chat.hook_name("attn_out", layer), chat.hook_name("mlp_out", layer)]
        self.reads += [] if mlp_bias is None else [self.down_name]

    def _gain(self, norm: Any) -> Float[Tensor, " d_model"] | None:
        """The gain of a norm up to one factor: what it makes of a vector of ones."""
        component = getattr(norm, "original_component", None)
        if component is None:
            return None
        ones = torch.ones(1, 1, self.chat.d_model, device=self.weight.device, dtype=self.chat.dtype)
        with torch.inference_mode():
            return component(ones)[0, 0].float()

    def heads(
        self,
        z: Float[Tensor, "batch head_index d_head"],
        before: Float[Tensor, "batch d_model"],
        after: Float[Tensor, "batch d_model"],
    ) -> tuple[Float[Tensor, "batch head_index category"], Float[Tensor, "batch category"]]:
        """(shares of the heads, share of the bias), from what the attention gave out before and after its norm."""
        gain, scale = self._norm(before, after, self.gains)
        folded = (self.directions * gain) @ self.weight  # [category, head_index * d_head]
        folded = folded.view(len(self.directions), *z.shape[1:])
        heads = torch.einsum("bhd,chd->bhc", z.float(), folded) * scale[:, None, None]
        return heads, ((self.directions * gain) @ self.bias)[None] * scale[:, None]

    def mlp_bias_share(
        self, kept: dict[str, Float[Tensor, "batch ..."]], after: Float[Tensor, "batch d_model"]
    ) -> Float[Tensor, "batch category"]:
        """The share of the bias of the MLP's output matrix, through the norm after it, if any; zeros without one."""
        if self.mlp_bias is None:
            return torch.zeros(len(after), len(self.directions), device=self.directions.device)
        gain, scale = self._norm(kept[self.down_name], after, self.mlp_gains)
        return ((self.directions * gain) @ self.mlp_bias)[None] * scale[:, None]

    def _norm(self, before: Tensor, after: Tensor, gains: list[Tensor | None]) -> tuple[Tensor, Tensor]:
        """The gain [d_model] and each prompt's scale [batch] of the norm between `before` and `after`; ones if none."""
        ones = torch.ones(before.shape[-1], device=before.device)
        fits = []
        for gain in (ones, *(gain for gain in gains if gain is not None)):
            passed = before.float() * gain
            scale = (passed * after.float()).sum(-1) / passed.square().sum(-1).clamp(min=1e-30)
            fits.append((float((passed * scale[:, None] - after.float()).norm()), gain, scale))
        error, gain, scale = min(fits, key=lambda fit: fit[0])
        if error <= 1e-2 * float(after.float().norm()):
            return gain, scale
        raise ValueError(
            "component_shares: between a block's output and the stream there may be one RMS norm at most; got something else in "
            f"{type(self.chat.bridge.original_model).__name__}, layer {self.layer}. Attribute to whole layers instead."
        )


def _shares_once(
    chat: ChatModel, ids: list[list[int]], rows: list[int], folded: list[_Folded], directions: Tensor, pos: int
) -> tuple[Tensor, ...]:
    last = len(folded)
    total = chat.hook_name("resid_pre", last) if last < chat.n_layers else chat.hook_name("resid_post", last - 1)
    names = [chat.hook_name("resid_pre", 0), total, *(name for each in folded for name in each.reads)]
    kept = read_hooks(chat, chat.pad(ids), names, lambda name, value: value[:, pos])
    _require_finite(kept, rows)

    def along(name: str) -> Float[Tensor, "batch category"]:
        # Layers may lie on different devices.
        return (kept[name].float() @ directions.to(kept[name].device, torch.float32).T).cpu()

    found = [
        each.heads(kept[each.z_name], kept[each.o_name], kept[chat.hook_name("attn_out", each.layer)])
        for each in folded
    ]
    outs = [kept[chat.hook_name("mlp_out", each.layer)] for each in folded]
    added = [each.mlp_bias_share(kept, out) for each, out in zip(folded, outs, strict=True)]
    mlp_biases = torch.stack([value.cpu() for value in added], dim=1)
    mlps = torch.stack([along(chat.hook_name("mlp_out", each.layer)) for each in folded], dim=1) - mlp_biases
    heads, attn_biases = (torch.stack([value.cpu() for value in values], dim=1) for values in zip(*found, strict=True))
    return heads, mlps, attn_biases, mlp_biases, along(names[0]), along(total)


def _require_finite(kept: dict[str, Tensor], rows: list[int]) -> None:
    for name, value in kept.items():
        bad = (~torch.isfinite(value)).flatten(1).any(1)
        if bad.any():
            raise ValueError(
                f"component_shares: activations must be finite; got NaN or inf for prompt {rows[int(bad.nonzero()[0])]} at {name}. "
                "Load the model with dtype (in a notebook: DTYPE) bfloat16 or float32."
            )


def _check_sum(chat: ChatModel, shares: Shares) -> None:
    gap = float((shares.sum() - shares.total).abs().max())
    size = float(max(shares.total.abs().max(), shares.mlps.abs().max(), shares.heads.abs().max()))
    if gap > tolerance(chat.dtype) * size:
        raise ValueError(
            f"component_shares: the shares must sum to the projection; got a gap of {gap:.2g} where the largest is {size:.2g} in "
            f"{type(chat.bridge.original_model).__name__}. Its blocks write to the stream in another way."
        )
