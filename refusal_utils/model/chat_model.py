"""A chat model ready to be measured, and how to load one: bundled, a folder, a hub id, a GGUF file, or SmolLM2.

All take one code path. Activations are read through TransformerLens' `TransformerBridge` on the raw weights, so
numbers match Hugging Face and published directions.
"""

import gc
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedTokenizerBase

from ..checks import invalid, require
from .as_found import AsFound, unwrapped
from .bridging import Bridged, boot_bridge, context_length
from .chat_format import TokenBatch, pad_left, thinking_mode
from .encoding import check_known, encode_chats
from .fingerprint import fingerprint, signature
from .loading import check_device, check_placement, load_weights, memory_errors
from .markup import Markup, read_markup, stop_tokens
from .names import short_name
from .setup import Setup, check_fixed, read_setup
from .sources import BUNDLED, BUNDLED_TOKENS_WEIGHTS, BUNDLED_WEIGHTS, find_source

__all__ = ["BUNDLED", "BUNDLED_TOKENS_WEIGHTS", "BUNDLED_WEIGHTS", "ChatModel", "check_positions", "load_chat_model"]


@dataclass(frozen=True, eq=False)
class ChatModel:
    """A chat model ready to be measured.

    Directions are read at `decision_layer` (`resid_pre`) and `decision_pos` (counted from the end of the prompt);
    `decision_source` names the origin of that choice. Every encoded prompt ends in the tokens of `suffix`.
    `dequantized_from` is the quantization of the GGUF file that the weights come from, such as Q4_K_M, or None.
    `writes` are the hooks at which something is written to the residual stream, none if not all of it is known;
    `has_cache` tells whether generation can keep past tokens. `as_found` is what a model passed as `hf_model` was like.
    """

    name: str
    bridge: TransformerBridge = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    n_layers: int
    d_model: int
    n_context: int
    decision_layer: int
    decision_pos: int
    decision_source: str
    suffix: tuple[int, ...]
    system_prompt: str | None = None
    thinking: str = "no thinking switch"
    dequantized_from: str | None = None
    writes: tuple[str, ...] = field(default=(), repr=False)
    has_cache: bool = True
    as_found: AsFound | None = field(default=None, repr=False)

    @property
    def short_name(self) -> str:
        """The last part of the model's name, for figures: a path would not fit, and names somebody's disk."""
        return short_name(self.name)

    @property
    def device(self) -> torch.device:
        """The device of the input embeddings, where token ids belong."""
        return self._embeddings.device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type that the model computes in, which the embeddings have even in a quantized model."""
        return self._embeddings.dtype

    @property
    def _embeddings(self) -> Tensor:
        model: Any = self.bridge.original_model
        return model.get_input_embeddings().weight

    def describe(self) -> str:
        """One line with name, device, dtype, quantization, size, decision state and source, thinking, system prompt."""
        origin = f", dequantized from {self.dequantized_from}" if self.dequantized_from else ""
        endless = "" if self.stop_tokens else "no stop token, so every response runs to its limit; "
        told = "none" if self.system_prompt is None else repr(self.system_prompt)
        return (
            f"{self.name} on {self.device} in {str(self.dtype).removeprefix('torch.')}{origin}: "
            f"{self.n_layers} layers, d_model {self.d_model}; "
            f"resid_pre of layer {self.decision_layer}, position {self.decision_pos} ({self.decision_source}); "
            f"{self.thinking}; {endless}system prompt {told}"
        )

    def at_place(self, layer: int, pos: int, source: str) -> "ChatModel":
        """The same loaded model with another decision state."""
        moved = copy(self)
        vars(moved).update(decision_layer=layer, decision_pos=pos, decision_source=source)
        return moved

    def unload(self) -> None:
        """Free the model's memory; later use raises `ValueError`. A model passed as `hf_model` is left as it came."""
        if self.as_found is not None:
            self.as_found.restore()
        self.__dict__.pop("hook_points", None)
        object.__setattr__(self, "bridge", _Unloaded(self.name))
        gc.collect()  # the bridge and its hooks refer to each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def hook_name(self, hook: str, layer: int) -> str:
        """The TransformerLens name: `blocks.{layer}.hook_{hook}`, or `blocks.{layer}.attn.hook_{hook}` (z, pattern).

        Raises `ValueError` if the model has no such layer or hook. Some versions silently ignore a misspelled name.
        """
        must, todo = f"the layer must be one of 0 to {self.n_layers - 1}", f"{self.name} has {self.n_layers} layers."
        require(-self.n_layers <= layer < self.n_layers, "hook_name", must, layer, todo)
        block = f"blocks.{layer % self.n_layers}"
        for name in (f"{block}.hook_{hook}", f"{block}.attn.hook_{hook}"):
            if name in self.hook_points:
                return name
        raise invalid("hook_name", "the model must have the hook", f"{hook!r} at {block}", "Check the spelling.")

    @cached_property
    def hook_points(self) -> dict[str, Any]:
        """All hook points by name and alias, which the bridge looks up again on each access."""
        return self.bridge.hook_dict

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """The unpadded token ids of each prompt as a user's chat turn, with the generation prompt.

        Raises `ValueError` if one is empty, has markup or tokens without embedding, is too long or ends differently.
        """
        sizes = self.n_context, len(self._embeddings)
        return encode_chats(self.tokenizer, prompts, self.system_prompt, self.suffix, self.markup, *sizes)

    @cached_property
    def markup(self) -> Markup:
        """What marks turns in this model's chats; `.as_text(reply)` makes a text safe to put into a prompt."""
        return read_markup(self.tokenizer)

    @property
    def stop_tokens(self) -> frozenset[int]:
        """The ids of the tokens that end a response (`markup.stop_tokens`)."""
        return stop_tokens(self.bridge.original_model, self.markup)

    def pad(self, ids: Sequence[Sequence[int]]) -> TokenBatch:
        """`ids` padded on the left to one length, on the model's device, with the attention mask."""
        return pad_left(self.tokenizer, ids, self.device, len(self._embeddings))

    @property
    def fingerprint(self) -> str:
        """A hash of the weights, architecture, tokenizer, template, system prompt and dtype, as they are now."""
        return fingerprint(self.bridge.original_model, self.tokenizer, self.system_prompt, self.dtype)

    @property
    def signature(self) -> tuple[Any, ...]:
        """What changes with the model's weights, found in milliseconds, for results that are kept in memory only."""
        return signature(self.bridge.original_model)


def load_chat_model(
    name: str | Path = BUNDLED,
    *,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    device_map: str | dict[str, Any] | None = None,
    hf_model: Any = None,
    layer: int | None = None,
    pos: int | None = None,
    system_prompt: str | None = None,
) -> ChatModel:
    """The chat model called `name`.

    `name`: `"bundled"`, `"bundled-tokens"`, `"smollm2"` (SmolLM2-135M-Instruct); a Hugging Face folder or hub id; or a
    `.gguf` file, local or on the hub (`Owner/Repo-GGUF:file.gguf`), which is dequantized once (`find_source`).
    `device`: by default the first GPU, all GPUs if the weights do not fit into the first, or else the CPU.
    `dtype`: by default float32 on the CPU; on a GPU bfloat16, or float16 if the chip does not support bfloat16.
    `device_map`: `"auto"` spreads the model over all GPUs (instead of `device`).
    `hf_model`: a loaded Hugging Face model, for instance in 8 or 4 bits; `name` then identifies its tokenizer.
    `layer`, `pos`: the decision state; see `defaults.decision_state`.

    Raises `ValueError` for an unknown or gated model, one that does not fit into memory, options that exclude each
    other, no chat template or one without a fixed ending, and logits that differ from those of Hugging Face.
    """
    _check_options(name, hf_model, device=device, dtype=dtype, device_map=device_map)
    source, hf_model = find_source(name), unwrapped(hf_model)
    setup = read_setup(str(name), source.place, hf_model, layer, pos, system_prompt)
    with memory_errors(str(name)):
        model = load_weights(str(name), source.place, device, dtype, device_map) if hf_model is None else hf_model
        check_placement(model)
        embedded = model.get_input_embeddings().weight
        for row in setup.probes:
            check_known("load_chat_model", setup.tokenizer, row, len(embedded), "every chat")
        probe = pad_left(setup.tokenizer, setup.probes, embedded.device, len(embedded))
        found = boot_bridge(str(name), model, setup.tokenizer, probe, setup.config.num_hidden_layers)
    if hf_model is None:
        return _assembled(str(name), setup, found, system_prompt, dequantized_from=source.dequantized_from)
    return _assembled(str(name), setup, found, system_prompt, as_found=found.as_found)


def _assembled(name: str, setup: Setup, found: Bridged, system_prompt: str | None, **origin: Any) -> ChatModel:
    return ChatModel(
        name=name,
        bridge=found.bridge,
        tokenizer=setup.tokenizer,
        n_layers=setup.config.num_hidden_layers,
        d_model=setup.config.hidden_size,
        n_context=context_length(setup.config, setup.tokenizer),
        decision_layer=setup.state.layer,
        decision_pos=setup.state.pos,
        decision_source=setup.state.source,
        suffix=setup.suffix,
        system_prompt=system_prompt,
        thinking=thinking_mode(setup.tokenizer, system_prompt),
        writes=found.writes,
        has_cache=found.has_cache,
        **origin,
    )


def check_positions(function: str, chat: ChatModel, positions: Sequence[int]) -> None:
    """Raise `ValueError` in the name of `function` for a position whose token is not the same in every prompt."""
    check_fixed(function, len(chat.suffix), positions)


def _check_options(name: str | Path, hf_model: Any, **placement: Any) -> None:
    given = [option for option, value in placement.items() if value is not None]
    if hf_model is not None:
        got, todo = f"also {' and '.join(given)}", "Set these where the model is loaded."
        require(not given, "load_chat_model", "hf_model is used as it is", got, todo)
        must, todo = "hf_model needs the name of its tokenizer", "Pass its hub id or folder as name."
        require(str(name) != BUNDLED, "load_chat_model", must, "none", todo)
    both = {"device", "device_map"} <= set(given)
    require(not both, "load_chat_model", "device and device_map exclude each other", "both", "Leave device out.")
    check_device(placement["device"])


class _Unloaded:
    """Replaces the bridge of an unloaded model; any use raises."""

    def __init__(self, name: str) -> None:
        self.__dict__["name"] = name

    def __getattr__(self, attribute: str) -> Any:
        got = f"{self.name} after unload()"
        raise invalid("ChatModel", "the model must be loaded", got, "Call load_chat_model again.")

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.forward
