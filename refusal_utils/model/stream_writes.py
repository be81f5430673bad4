"""All hooks that write to a residual stream, found by trial: with all ablated, nothing is left of a direction."""

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from .chat_format import TokenBatch

MOST_LEFT = 1e-3  # of a token's state, along a direction that was ablated
USUAL = ("hook_attn_out", "hook_mlp_out")
MIXERS = ("mixer.hook_out", "mamba.hook_out", "conv.hook_out", "linear_attn.hook_out")


def stream_writes(bridge: TransformerBridge, probe: TokenBatch, n_layers: int) -> tuple[str, ...]:
    """The hooks to ablate so that nothing is left along a direction; none if something is always left.

    These are the embedding and what every attention and MLP block adds. If that leaves more than `MOST_LEFT` of a
    token's state (per-layer inputs in Gemma 4, state-space mixers in Falcon-H1), other mixers and the whole stream
    after every block are added. `resid_mid` is not among them: there the bridge passes on a copy, so an edit has no
    effect.
    """
    usual = _names(bridge, n_layers, USUAL)
    for names in (usual, [*usual, *_names(bridge, n_layers, (*MIXERS, "hook_resid_post"))]):
        if _most_left(bridge, probe, n_layers, names) <= MOST_LEFT:
            return tuple(names)
    return ()


def replaces_stream(name: str) -> bool:
    """Whether an edit at the hook `name` changes the whole stream, rather than what one block adds to it."""
    return "hook_resid" in name


def _names(bridge: TransformerBridge, n_layers: int, hooks: tuple[str, ...]) -> list[str]:
    first = ["blocks.0.hook_resid_pre"] if hooks == USUAL else []
    names = [f"blocks.{layer}.{hook}" for layer in range(n_layers) for hook in hooks]
    known = bridge.hook_dict.keys()
    return first + [name for name in names if name in known]


def _most_left(bridge: TransformerBridge, probe: TokenBatch, n_layers: int, names: list[str]) -> float:
    """The largest share of any token's state that is left along a random direction, anywhere in the stream."""
    d_model, device = bridge.cfg.d_model, probe.input_ids.device
    direction = torch.nn.functional.normalize(torch.randn(d_model, generator=torch.Generator().manual_seed(0)), dim=0)
    left: list[float] = []

    def remove(value: Tensor, hook: object) -> Tensor:
        along = direction.to(value)
        return value - (value @ along)[..., None] * along

    def measure(value: Tensor, hook: object) -> None:
        left.append(_share(value, direction, probe))

    read = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post")
    seen = [name for name in bridge.hook_dict if name.startswith("blocks.") and name.endswith(read)]
    hooks = [*((name, remove) for name in names), *((name, measure) for name in seen)]
    with bridge.hooks(fwd_hooks=hooks), torch.inference_mode():
        bridge(probe.input_ids.to(device), attention_mask=probe.attention_mask)
    return max(left, default=torch.inf)


def _share(value: Float[Tensor, "..."], direction: Float[Tensor, " d_model"], probe: TokenBatch) -> float:
    if value.shape != (*probe.input_ids.shape, len(direction)):  # several streams at once (Gemma 3n)
        return torch.inf
    states = value[probe.attention_mask.bool().to(value.device)].float()
    return float(((states @ direction.to(states)).abs() / states.norm(dim=-1).clamp(min=1e-12)).max())
