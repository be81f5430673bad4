"""Capture activations at (hook, layer, pos), and reuse them from disk.

Only the asked layers and positions are ever kept, the forward pass stops at the deepest of them, and every batch is
written as soon as it is computed: a killed run resumes where it stopped and ends bit-identical to an unbroken one.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .activation_store import ActivationStore
from .batching import plan_batches, run_batches, token_budget
from .chat_model import ChatModel, check_positions
from .forward import read_hooks


@dataclass(frozen=True, eq=False)
class Activations:
    """Activations of a set of prompts at one hook: `values[prompt, layer, pos]`, in the model's own dtype.

    `n_captured` of the prompts were computed in this call, the others read from disk.
    """

    values: Float[Tensor, "prompt layer pos d_model"] = field(repr=False)
    layers: tuple[int, ...]
    positions: tuple[int, ...]
    hook: str
    model: str
    n_captured: int

    def at(self, layer: int, pos: int) -> Float[Tensor, "prompt d_model"]:
        """The activations at one layer and position, as float32. Raises `ValueError` where they were not captured."""
        for name, value, known in (("layer", layer, self.layers), ("pos", pos, self.positions)):
            if value not in known:
                raise ValueError(
                    f"Activations.at: the {name} must be a captured one; got {value}. Captured: {', '.join(map(str, known))}."
                )
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
    """The activations of `prompts`, each as a user's chat turn, at `hook` of `layers` and `positions`.

    By default of all layers, at the decision position.
    `hook` is any residual-stream hook of width d_model, or `"z"`, all heads' outputs side by side [n_heads * d_head].
    Positions count from the end of the encoded prompt and must be template tokens. Prompts are batched by length up to
    `batch_tokens` padded tokens; when memory runs out the batch is halved, and that is said. With a `cache_dir`,
    prompts captured before under the same weights, tokenizer, template, hook, layers, positions and dtype are read
    instead; a file that fails its checksum is named and recomputed. Raises `ValueError` for no prompts or a single
    text, a layer or position out of range, a hook of another form, a budget below one token, a single prompt that does
    not fit into memory, values that are not finite (prompt and layer named), and a cache that cannot be read or written.
    """
    layers = tuple(range(chat.n_layers)) if layers is None else _whole("layers", layers)
    positions = (chat.decision_pos,) if positions is None else _whole("positions", positions)
    _check_request(chat, prompts, layers, positions)
    budget = token_budget("capture_activations", batch_tokens, chat.device)
    names = [chat.hook_name(hook, layer) for layer in layers]
    ids = chat.encode(list(prompts))
    store = None if cache_dir is None else ActivationStore(Path(cache_dir), chat, names, positions)
    found = _Found(len(ids))

    def left(rows: list[int]) -> list[int]:
        # A stored prompt is never captured again: it would be in two files and differ in its last bits.
        return found.add_stored(rows, store.read([ids[row] for row in rows])) if store else rows

    def step(rows: list[int]) -> Float[Tensor, "batch layer pos d_model"]:
        return _read_positions(chat, [ids[row] for row in rows], names, positions)

    batches, label = plan_batches(ids, budget), "capture" if progress else ""
    for rows, values in run_batches("capture_activations", batches, step, left=left, progress=label):
        _require_finite(values, rows, layers)
        if store:
            store.write([ids[row] for row in rows], values)
        found.add(rows, values)
    return Activations(found.values, layers, positions, hook, chat.name, found.n_captured)


def profile_places(chat: ChatModel) -> dict[str, tuple[int, ...]]:
    """`layers` and `positions`, for `capture_activations`, of a profile over the whole model.

    Every template position; all layers of a model of up to 31, of a deeper one every k-th and the decision layer. What
    reads the same places shares one cache.
    """
    layers = {*range(0, chat.n_layers, max(1, chat.n_layers // 16)), chat.decision_layer}
    return {"layers": tuple(sorted(layers)), "positions": tuple(range(-len(chat.suffix), 0))}


class _Found:
    """The activations found so far: read from disk or captured."""

    def __init__(self, n_prompts: int) -> None:
        self.n_prompts, self.n_captured, self.values = n_prompts, 0, torch.empty(0)

    def add_stored(self, rows: Sequence[int], stored: Sequence[Tensor | None]) -> list[int]:
        """Keep what is not None and return the rows that are."""
        known = {row: values for row, values in zip(rows, stored, strict=True) if values is not None}
        if known:
            self._place(list(known), torch.stack(list(known.values())))
        return [row for row in rows if row not in known]

    def add(self, rows: Sequence[int], values: Float[Tensor, "batch layer pos d_model"]) -> None:
        """Keep newly captured activations."""
        self._place(rows, values)
        self.n_captured += len(rows)

    def _place(self, rows: Sequence[int], values: Float[Tensor, "batch layer pos d_model"]) -> None:
        if not len(self.values):  # the first batch shows how wide the hook is
            self.values = torch.empty(self.n_prompts, *values.shape[1:], dtype=values.dtype)
        self.values[rows] = values


def _whole(name: str, asked: Any) -> tuple[int, ...]:
    """The layers or positions asked for, as plain integers."""
    try:
        return tuple(operator.index(each) for each in asked)
    except TypeError as error:
        raise ValueError(
            f"capture_activations: {name} must be a list of whole numbers; got {asked!r}. Write [{-2 if name == 'positions' else 0}], for example."
        ) from error


def _check_request(chat: ChatModel, prompts: Any, layers: Sequence[int], positions: Sequence[int]) -> None:
    if isinstance(prompts, str) or not (isinstance(prompts, Sequence) or hasattr(prompts, "tolist")):
        raise ValueError(
            f"capture_activations: prompts must be a list of texts; got {prompts!r:.60}. Put a single one in brackets."
        )
    if not len(prompts):
        raise ValueError(
            "capture_activations: there must be at least one prompt; got none. Check the filter that chose them."
        )
    if not layers or not positions:
        raise ValueError(
            f"capture_activations: layers and positions must not be empty; got {layers} and {positions}. Name at least one."
        )
    for layer in layers:
        if not 0 <= layer < chat.n_layers:
            raise ValueError(
                f"capture_activations: layers must be of 0 to {chat.n_layers - 1}; got {layer}. "
                f"{chat.name} has {chat.n_layers} layers."
            )
    check_positions("capture_activations", chat, positions)


def _read_positions(
    chat: ChatModel, ids: list[list[int]], names: Sequence[str], positions: Sequence[int]
) -> Float[Tensor, "batch layer pos d_model"]:
    batch = chat.pad(ids)

    def keep(name: str, value: Tensor) -> Tensor:
        _check_form(name, value, (*batch.input_ids.shape, chat.d_model))
        return value[:, list(positions)].flatten(2).detach().cpu()

    kept = read_hooks(chat, batch, names, keep)
    return torch.stack([kept[name] for name in names], dim=1)


def _check_form(name: str, value: Any, stream: tuple[int, ...]) -> None:
    """Only what has one row per token can be read at a position: the stream, and the heads' outputs."""
    hook = name.split("hook_")[-1]
    if value.shape != stream and not (hook == "z" and value.shape[:2] == stream[:2]):
        raise ValueError(
            f"capture_activations: the hook must be of the residual stream, {stream[-1]} wide, or 'z'; "
            f"got {hook!r} of shape {list(value.shape)}. Use TransformerLens' run_with_cache for others."
        )


def _require_finite(
    values: Float[Tensor, "batch layer pos d_model"], rows: Sequence[int], layers: Sequence[int]
) -> None:
    bad = ~torch.isfinite(values).flatten(2).all(-1)
    if bad.any():
        row, layer = (int(index[0]) for index in torch.nonzero(bad, as_tuple=True))
        raise ValueError(
            f"capture_activations: activations must be finite; got NaN or inf for prompt {rows[row]} at layer {layers[layer]}. "
            "Load the model in bfloat16 or float32."
        )
