"""One block's writes to the residual stream, with the directions folded through its output matrices.

A head's share is z . (W_O' r), so the directions go through the output matrix first, all at once, and a head's output is
never built at full width. If an RMS norm follows the output (Gemma-2, Gemma-3, OLMo-2), its scale is frozen at its value
for that prompt, which keeps the sum of the shares exact.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import invalid, require
from ..model.chat_model import ChatModel

NORMS_AFTER = {"attn": ("ln1_post", "ln1"), "mlp": ("ln2_post", "ln2")}


class FoldedBlock:
    """The shares of one block's heads, MLP and output biases along fixed directions.

    `reads`: the hooks whose activations at one position `shares` needs. Raises `ValueError` for an architecture without
    per-head outputs and for quantized weights.
    """

    def __init__(self, chat: ChatModel, layer: int, directions: Float[Tensor, "category d_model"]) -> None:
        output = _output_matrix(chat, layer)
        weight = output.weight.detach().float()
        self.directions = directions.to(weight.device, torch.float32)
        self.z = chat.hook_name("z", layer)
        self.attn_norm = _norm_after(chat, layer, "attn", f"blocks.{layer}.attn.o.hook_out", weight.device)
        self.mlp_norm = _norm_after(chat, layer, "mlp", f"blocks.{layer}.mlp.out.hook_out", weight.device)
        self.folded = [(self.directions * gain) @ weight for gain in self.attn_norm.gains]
        self.attn_bias = self._fold_bias(output, self.attn_norm)
        self.mlp_bias = self._fold_bias(_matrix(chat, layer, "mlp", "out"), self.mlp_norm)
        self.reads = [self.z, self.attn_norm.before, self.attn_norm.after, self.mlp_norm.after]
        self.reads += [] if self.mlp_bias is None else [self.mlp_norm.before]

    def shares(
        self, kept: Mapping[str, Float[Tensor, "batch ..."]]
    ) -> tuple[Float[Tensor, "batch head_index category"], *tuple[Float[Tensor, "batch category"], ...]]:
        """Shares of the heads, the MLP, the attention's output bias and the MLP's output bias, on the CPU.

        `kept`: the activations of `reads` at one position.
        """
        z, (choice, scale) = kept[self.z].float(), self.attn_norm.fit(kept)
        folded = self.folded[choice].view(len(self.directions), *z.shape[1:])
        heads = torch.einsum("bhd,chd->bhc", z, folded) * scale[:, None, None]
        out = kept[self.mlp_norm.after].float()
        attn_bias = torch.zeros_like(heads[:, 0]) if self.attn_bias is None else self.attn_bias[choice] * scale[:, None]
        mlp_bias = self._mlp_bias_share(kept)
        mlp = (out @ self.directions.to(out.device).T).cpu() - mlp_bias
        return heads.cpu(), mlp, attn_bias.cpu(), mlp_bias

    def _mlp_bias_share(self, kept: Mapping[str, Tensor]) -> Tensor:
        if self.mlp_bias is None:
            return torch.zeros(len(kept[self.z]), len(self.directions))
        choice, scale = self.mlp_norm.fit(kept)
        return (self.mlp_bias[choice] * scale[:, None]).cpu()

    def _fold_bias(self, matrix: Any, norm: "_Norm") -> list[Float[Tensor, " category"]] | None:
        bias = getattr(matrix, "bias", None)
        if bias is None:
            return None
        return [(self.directions * gain) @ bias.detach().to(self.directions) for gain in norm.gains]


@dataclass(frozen=True, eq=False)
class _Norm:
    """What lies between an output matrix and the stream: nothing, or one of the block's RMS norms.

    `before` and `after` are hook names; the first of `gains` stands for no norm.
    """

    before: str
    after: str
    gains: list[Float[Tensor, " d_model"]]
    place: str

    def fit(self, kept: Mapping[str, Tensor]) -> tuple[int, Float[Tensor, " batch"]]:
        """The index of the gain that explains the activations, and the scale of each prompt."""
        before, after = kept[self.before].float(), kept[self.after].float()
        fits = []
        for choice, gain in enumerate(self.gains):
            passed = before * gain
            scale = (passed * after).sum(-1) / passed.square().sum(-1).clamp(min=1e-30)
            fits.append((float((passed * scale[:, None] - after).norm()), choice, scale))
        error, choice, scale = min(fits, key=lambda fit: fit[0])
        require(
            error <= 1e-2 * float(after.norm()),
            "component_shares",
            "at most one RMS norm may lie between a block's output and the stream",
            f"something else in {self.place}",
            "Attribute to whole layers instead.",
        )
        return choice, scale


def _norm_after(chat: ChatModel, layer: int, part: str, before: str, device: torch.device) -> _Norm:
    gains = [torch.ones(chat.d_model, device=device)]
    for name in NORMS_AFTER[part]:
        norm: Any = getattr(getattr(chat.bridge.blocks[layer], name, None), "original_component", None)
        if norm is not None:  # what it makes of a vector of ones is its gain up to one factor
            with torch.inference_mode():
                gains.append(norm(torch.ones(1, 1, chat.d_model, device=device, dtype=chat.dtype))[0, 0].float())
    place = f"{_architecture(chat)}, layer {layer}"
    return _Norm(before, chat.hook_name(f"{part}_out", layer), gains, place)


def _output_matrix(chat: ChatModel, layer: int) -> Any:
    """The attention's output matrix. Raises `ValueError` unless its heads' outputs can be read and its weights used."""
    output = _matrix(chat, layer, "attn", "o")
    weight = getattr(output, "weight", None)
    hooks = (f"blocks.{layer}.attn.hook_z", f"blocks.{layer}.attn.o.hook_out")
    missing = [name for name in hooks if name not in chat.bridge.hook_dict]
    if weight is None or missing:
        what = missing[0] if missing else "attention output matrix (attn.o)"
        raise invalid(
            "component_shares",
            "the architecture must have per-head outputs",
            f"{_architecture(chat)}, whose layer {layer} has no {what}",
            "Attribute to whole layers instead.",
        )
    require(
        weight.is_floating_point() and weight.shape[0] == chat.d_model,
        "component_shares",
        "weights must not be quantized",
        f"{str(weight.dtype).removeprefix('torch.')} in {chat.name}, layer {layer}",
        "Load the model in bfloat16, float16 or float32.",
    )
    return output


def _matrix(chat: ChatModel, layer: int, part: str, name: str) -> Any:
    """One of the block's matrices, or None."""
    own = getattr(getattr(chat.bridge.blocks[layer], part, None), name, None)
    return getattr(own, "original_component", None)


def _architecture(chat: ChatModel) -> str:
    return type(chat.bridge.original_model).__name__
