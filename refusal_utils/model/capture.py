"""Capture activations at (hook, layer, pos), and read them from disk if they were captured before.

Only the requested layers and positions are kept, the forward pass stops at the deepest of them, and each batch is
written as soon as it is computed: a killed run resumes where it stopped and ends bit-identical to an unbroken one.
"""

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import invalid, require
from .activation_store import ActivationStore, FoundPrompts
from .batching import plan_batches, run_batches, token_budget
from .chat_model import ChatModel, check_positions
from .common_tokens import CommonTokens
from .forward import read_hooks
from .open_hooks import NOT_STORED, require_no_hooks
from .store import one_at_a_time

_FUNCTION = "capture_activations"


@dataclass(frozen=True, eq=False)
class Activations:
    """Activations of a set of prompts at one hook, in the model's own dtype.

    `n_captured`: how many of the prompts were computed in this call rather than read from disk.
    """

    values: Float[Tensor, "prompt layer pos d_model"] = field(repr=False)
    layers: tuple[int, ...]
    positions: tuple[int, ...]
    hook: str
    model: str
    n_captured: int

    def at(self, layer: int, pos: int) -> Float[Tensor, "prompt d_model"]:
        """The activations at one layer and position, as float32. Raises `ValueError` if they were not captured."""
        for name, value, known in (("layer", layer, self.layers), ("pos", pos, self.positions)):
            todo = f"Captured: {', '.join(map(str, known))}."
            require(value in known, "Activations.at", f"the {name} must be a captured one", value, todo)
        return self.values[:, self.layers.index(layer), self.positions.index(pos)].float()


def capture_activations(
    chat: ChatModel,
    prompts: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    hook: str = "resid_pre",
    cache_dir: str | Path | None = None,
    batch_tokens: int | None = None,
    progress: bool = False,
) -> Activations:
    """The activations of `prompts`, each as a user's chat turn: values [prompt, layer, pos, d_model].

    By default at all `layers` and the decision position; `positions` are template tokens, counted from the end of the
    prompt. `hook`: a residual-stream hook of width d_model (`resid_pre`, `resid_mid`, `resid_post`, `attn_out`,
    `mlp_out`), or `z`, the outputs of all heads concatenated [n_heads * d_head]. `cache_dir` keeps activations by
    weights, tokenizer, template, hook, layers, positions and dtype. `batch_tokens`: padded tokens per batch.

    Raises `ValueError` for no prompts, a layer or position out of range, another hook, a single prompt that does not
    fit into memory, values that are not finite, a cache that cannot be read or written, and one while hooks are open.
    """
    layers = tuple(range(chat.n_layers)) if layers is None else _whole("layers", layers)
    positions = (chat.decision_pos,) if positions is None else _whole("positions", positions)
    _check_request(chat, prompts, layers, positions)
    if cache_dir is not None:
        require_no_hooks(_FUNCTION, chat, NOT_STORED, "Close it, or leave cache_dir out.")
    budget = token_budget(_FUNCTION, batch_tokens, chat.device)
    names = [chat.hook_name(hook, layer) for layer in layers]
    texts, label = list(prompts), "capture" if progress else ""
    model = None if cache_dir is None else chat.fingerprint  # it reads all weights
    with one_at_a_time(cache_dir, model, names, positions, texts):
        found = _Found(texts, None if cache_dir is None else ActivationStore(Path(cache_dir), chat, names, positions))
        n_captured = len(texts) - len(found.known)
        for rows, values in _read_missing(chat, texts, names, positions, budget, found, label) if n_captured else ():
            _check_values(values, rows, layers)
            found.add(rows, values)
    return Activations(found.values, layers, positions, hook, chat.name, n_captured)


def profile_places(chat: ChatModel) -> dict[str, tuple[int, ...]]:
    """`layers` and `positions`, for `capture_activations`, of a profile over the whole model.

    Every template position; all layers of a model with up to 31, and in a deeper one every k-th and the decision
    layer. Callers that use the same places share one cache.
    """
    layers = {*range(0, chat.n_layers, max(1, chat.n_layers // 16)), chat.decision_layer}
    return {"layers": tuple(sorted(layers)), "positions": tuple(range(-len(chat.suffix), 0))}


class _Found(FoundPrompts):
    """The activations of texts as one tensor."""

    values = torch.empty(0)

    def _keep(self, rows: Sequence[int], values: Float[Tensor, "batch layer pos d_model"]) -> None:
        if not self.known:  # the first batch shows how wide the hook is
            self.values = torch.empty(len(self.prompts), *values.shape[1:], dtype=values.dtype)
        self.values[list(rows)] = values


def _whole(name: str, given: Any) -> tuple[int, ...]:
    """The layers or positions as plain integers."""
    try:
        return tuple(map(operator.index, given))
    except TypeError as error:
        must = f"{name} must be a list of whole numbers"
        raise invalid(_FUNCTION, must, repr(given), "Write it in brackets.") from error


def _check_request(chat: ChatModel, prompts: Any, layers: Sequence[int], positions: Sequence[int]) -> None:
    is_list = not isinstance(prompts, str) and (isinstance(prompts, Sequence) or hasattr(prompts, "tolist"))
    todo = "Put a single one in brackets."
    require(is_list, _FUNCTION, "prompts must be a list of texts", f"{prompts!r:.60}", todo)
    todo = "Check the filter that chose them."
    require(len(prompts) > 0, _FUNCTION, "there must be at least one prompt", "none", todo)
    must, got = "layers and positions must not be empty", f"{layers} and {positions}"
    require(bool(layers and positions), _FUNCTION, must, got, "Name at least one.")
    must, todo = f"layers must be of 0 to {chat.n_layers - 1}", f"{chat.name} has {chat.n_layers} layers."
    for layer in layers:
        require(0 <= layer < chat.n_layers, _FUNCTION, must, layer, todo)
    check_positions(_FUNCTION, chat, positions)


def _read_missing(
    chat: ChatModel,
    texts: Sequence[str],
    names: Sequence[str],
    positions: tuple[int, ...],
    budget: int,
    found: _Found,
    label: str,
) -> Iterator[tuple[list[int], Float[Tensor, "batch layer pos d_model"]]]:
    """Pairs (rows, activations) of the rows that are not in `found`, batch by batch."""
    ids = chat.encode(texts)
    common = CommonTokens(chat, ids, -min(positions))

    def step(rows: list[int]) -> Float[Tensor, "batch layer pos d_model"]:
        return _read_positions(common, [ids[row] for row in rows], names, positions)

    # All prompts are planned, stored ones too: a resumed run must form the same batches as an unbroken one.
    batches, what = plan_batches(ids, budget), f"prompts at {len(names)} layers"
    return run_batches(_FUNCTION, batches, step, left=found.missing, progress=label, what=what)


def _read_positions(
    common: CommonTokens, ids: list[list[int]], names: Sequence[str], positions: Sequence[int]
) -> Float[Tensor, "batch layer pos d_model"]:
    chat, batch = common.chat, common.batch(ids)
    stream = (*batch.input_ids.shape, chat.d_model)

    def keep(name: str, value: Tensor) -> Tensor:
        # Only the stream and the heads' outputs have one row per token.
        fits = value.shape == stream or (name.endswith("hook_z") and value.shape[:2] == stream[:2])
        must = f"the hook must be of the residual stream, {chat.d_model} wide, or 'z'"
        got = f"{name.split('hook_')[-1]!r} of shape {list(value.shape)}"
        require(fits, _FUNCTION, must, got, "Use TransformerLens' run_with_cache for others.")
        return value[:, list(positions)].flatten(2).detach().cpu()

    kept = read_hooks(chat, partial(common.forward, batch), names, keep)
    return torch.stack([kept[name] for name in names], dim=1)


def _check_values(values: Float[Tensor, "batch layer pos d_model"], rows: Sequence[int], layers: Sequence[int]) -> None:
    bad = (~torch.isfinite(values)).flatten(2).any(-1).nonzero().tolist()
    if bad:
        row, layer = bad[0]
        got = f"NaN or inf for prompt {rows[row]} at layer {layers[layer]}"
        todo = "Load the model in bfloat16 or float32."
        raise invalid(_FUNCTION, "activations must be finite", got, todo)
