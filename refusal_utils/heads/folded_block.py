"""One block's writes to the residual stream, with the directions folded through its output matrices.

A head's share is z . (W_O' r), so the directions go through the output matrix first, all at once, and a head's output
is never built at full width. If an RMS norm follows the output (Gemma-2, Gemma-3, OLMo-2), its scale is frozen at its
value for that prompt, which keeps the sum of the shares exact.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import require
from ..model.chat_model import ChatModel

NORMS_AFTER = {"attn": ("ln1_post", "ln1"), "mlp": ("ln2_post", "ln2")}
MOST_ERROR = 1e-2  # relative; what an RMS norm may leave unexplained in half precision


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
        self.attn = _way_out(chat, layer, "attn", "o", weight.device)
        self.mlp = _way_out(chat, layer, "mlp", "out", weight.device)
        self.folded = [(self.directions * gain) @ weight for gain in self.attn.gains]
        self.reads = [self.z, self.attn.before, self.attn.after, self.mlp.after]
        self.reads += [] if self.mlp.bias is None else [self.mlp.before]

    def shares(
        self, kept: Mapping[str, Float[Tensor, "batch ..."]]
    ) -> tuple[Float[Tensor, "batch head_index category"], *tuple[Float[Tensor, "batch category"], ...]]:
        """Shares of the heads, the MLP without its bias, and the output biases of both parts, on the CPU.

        `kept`: the activations of `reads` at one position.
        """
        z, (choice, scale) = kept[self.z].float(), self.attn.fit(kept)
        folded = self.folded[choice].view(len(self.directions), *z.shape[1:])
        heads = torch.einsum("bhd,chd->bhc", z, folded) * scale[:, None, None]
        attn_bias, mlp_bias = (self._bias_share(way, kept) for way in (self.attn, self.mlp))
        out = kept[self.mlp.after].float()
        mlp = (out @ self.directions.to(out.device).T).cpu() - mlp_bias
        return heads.cpu(), mlp, attn_bias + mlp_bias

    def _bias_share(self, way: "_WayOut", kept: Mapping[str, Tensor]) -> Tensor:
        if way.bias is None:
            return torch.zeros(len(kept[self.z]), len(self.directions))
        choice, scale = way.fit(kept)
        along = (self.directions * way.gains[choice]) @ way.bias.detach().to(self.directions)
        return (along * scale[:, None]).cpu()


@dataclass(frozen=True, eq=False)
class _WayOut:
    """From an output matrix to the stream: the matrix's bias, then nothing or one of the block's RMS norms.

    `before` and `after` are hook names; the first of `gains` stands for no norm.
    """

    before: str
    after: str
    bias: Tensor | None
    gains: list[Float[Tensor, " d_model"]]
    place: str

    def fit(self, kept: Mapping[str, Tensor]) -> tuple[int, Float[Tensor, " batch"]]:
        """The index of the gain that explains the activations, and the scale of each prompt."""
        before, after = kept[self.before].float(), kept[self.after].float()
        fits = [frozen_scale(before, after, gain) for gain in self.gains]
        choice = min(range(len(fits)), key=lambda index: fits[index][1])
        scale, error = fits[choice]
        must = "at most one RMS norm may lie between a block's output and the stream"
        todo = "Attribute to whole layers instead."
        require(error <= MOST_ERROR, "component_shares", must, f"something else in {self.place}", todo)
        return choice, scale


def frozen_scale(
    before: Float[Tensor, "prompt d_model"], after: Float[Tensor, "prompt d_model"], gain: Float[Tensor, " d_model"]
) -> tuple[Float[Tensor, " prompt"], float]:
    """(each prompt's scale with which `before * gain` comes closest to `after`, the relative error that is left)."""
    passed = before * gain
    scale = (passed * after).sum(-1) / passed.square().sum(-1).clamp(min=1e-30)
    return scale, float((passed * scale[:, None] - after).norm() / after.norm().clamp(min=1e-30))


def norm_gain(chat: ChatModel, norm: Any, device: torch.device) -> Float[Tensor, " d_model"]:
    """The gain of an RMS norm up to one factor: what it makes of a vector of ones."""
    with torch.inference_mode():
        return norm(torch.ones(1, 1, chat.d_model, device=device, dtype=chat.dtype))[0, 0].float()


def _way_out(chat: ChatModel, layer: int, part: str, matrix: str, device: torch.device) -> _WayOut:
    block = chat.bridge.blocks[layer]
    norms = (getattr(getattr(block, name, None), "original_component", None) for name in NORMS_AFTER[part])
    gains = [norm_gain(chat, norm, device) for norm in norms if norm is not None]
    return _WayOut(
        before=f"blocks.{layer}.{part}.{matrix}.hook_out",
        after=chat.hook_name(f"{part}_out", layer),
        bias=getattr(_matrix(chat, layer, part, matrix), "bias", None),
        gains=[torch.ones(chat.d_model, device=device), *gains],
        place=f"{_architecture(chat)}, layer {layer}",
    )


def _output_matrix(chat: ChatModel, layer: int) -> Any:
    """The attention's output matrix. Raises `ValueError` unless its heads' outputs can be read and its weights used."""
    output = _matrix(chat, layer, "attn", "o")
    hooks = {f"blocks.{layer}.attn.hook_z", f"blocks.{layer}.attn.o.hook_out"}
    readable = hasattr(output, "weight") and hooks <= chat.hook_points.keys()
    must, got = "the architecture must have per-head outputs", f"{_architecture(chat)}, whose layer {layer} has none"
    require(readable, "component_shares", must, got, "Attribute to whole layers instead.")
    weight, todo = output.weight, "Load the model in bfloat16, float16 or float32."
    usable = weight.is_floating_point() and weight.shape[0] == chat.d_model
    got = f"{str(weight.dtype).removeprefix('torch.')} in {chat.name}, layer {layer}"
    require(usable, "component_shares", "weights must not be quantized", got, todo)
    return output


def _matrix(chat: ChatModel, layer: int, part: str, name: str) -> Any:
    """One of the block's matrices, or None."""
    own = getattr(getattr(chat.bridge.blocks[layer], part, None), name, None)
    return getattr(own, "original_component", None)


def _architecture(chat: ChatModel) -> str:
    return type(chat.bridge.original_model).__name__
