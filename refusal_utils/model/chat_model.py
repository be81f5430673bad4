"""Load a chat model, encode chats, and find the decision state: the token where a prompt has been read and answering begins.

One code path serves the bundled model, a local Hugging Face folder and a hub id. Activations are reached through
TransformerLens' `TransformerBridge` on the raw weights, so numbers match Hugging Face and published directions.
"""

import gc
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedTokenizerBase

from .chat_format import PROBES, TokenBatch, common_suffix, left_pad, probe_ids, render_chat, thinking_mode
from .defaults import decision_state
from .loading import (
    DeviceMap,
    boot_bridge,
    check_device,
    check_placement,
    load_tokenizer,
    load_weights,
    memory_in_one_sentence,
)

BUNDLED = "bundled"
BUNDLED_WEIGHTS = Path(__file__).parent.parent / "bundled" / "weights"
_ENCODED_AT_ONCE = 256  # prompts: what a tokenizer notes beside their ids takes some 10 kB each
_NOT_OF_THE_MODEL = ("dtype", "torch_dtype", "transformers_version", "use_cache")


@dataclass(frozen=True, eq=False)
class ChatModel:
    """A chat model ready to be measured.

    `decision_layer`, `decision_pos`: where refusal directions are read by default (resid_pre, index from the end of
    the prompt), `decision_source`: where that choice comes from. `suffix`: the token ids that every encoded prompt ends in (the post-instruction tokens).
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

    @property
    def template(self) -> str:
        """The chat template, as Jinja source."""
        return self.tokenizer.chat_template

    @property
    def device(self) -> torch.device:
        """Where tokens must be put: the device of the input embeddings."""
        return self._embeddings.device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type that the model runs in; the embeddings have it also where other weights are quantized."""
        return self._embeddings.dtype

    @property
    def _embeddings(self) -> Tensor:
        model: Any = self.bridge.original_model
        return model.get_input_embeddings().weight

    def describe(self) -> str:
        """One line: name, device, dtype, size, where directions are read and why there, thinking, and the system prompt."""
        return (
            f"{self.name} on {self.device} in {str(self.dtype).removeprefix('torch.')}: {self.n_layers} layers, "
            f"d_model {self.d_model}; resid_pre of layer {self.decision_layer}, position {self.decision_pos} "
            f"({self.decision_source}); {self.thinking}; "
            f"system prompt {'none' if self.system_prompt is None else repr(self.system_prompt)}"
        )

    def unload(self) -> None:
        """Free the memory of the model; using it afterwards raises `ValueError`. A caller's own `hf_model` lives on."""
        self.__dict__.pop("_hook_names", None)
        object.__setattr__(self, "bridge", _Unloaded(self.name))
        gc.collect()  # the bridge and its hooks refer to each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def hook_name(self, hook: str, layer: int) -> str:
        """The full TransformerLens name: `blocks.{layer}.hook_{hook}`, or `blocks.{layer}.attn.hook_{hook}` for z, pattern ...

        Raises `ValueError` where the model has none: on some versions a misspelt name is silently ignored.
        """
        if not -self.n_layers <= layer < self.n_layers:
            raise ValueError(
                f"hook_name: the layer must be one of 0 to {self.n_layers - 1}; got {layer}. {self.name} has {self.n_layers} layers."
            )
        block = f"blocks.{layer % self.n_layers}"
        for name in (f"{block}.hook_{hook}", f"{block}.attn.hook_{hook}"):
            if name in self._hook_names:
                return name
        raise ValueError(
            f"hook_name: the model must have the hook; got {hook!r} at {block}. {self.name} offers no such hook."
        )

    @cached_property
    def _hook_names(self) -> frozenset[str]:
        # The bridge resolves every alias anew each time it is asked.
        return frozenset(self.bridge.hook_dict)

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """The token ids of each prompt as a user's chat turn, generation prompt included, without padding.

        Raises `ValueError` for an empty prompt, one longer than the context, and a template that ends differently.
        """
        texts = [self._render(index, prompt) for index, prompt in enumerate(prompts)]
        encoded: list[list[int]] = []
        for start in range(0, len(texts), _ENCODED_AT_ONCE):
            encoded += self.tokenizer(texts[start : start + _ENCODED_AT_ONCE], add_special_tokens=False)["input_ids"]
        for index, ids in enumerate(encoded):
            if len(ids) > self.n_context:
                raise ValueError(
                    f"encode: a prompt must fit the context of {self.n_context} tokens; "
                    f"got {len(ids)} in prompt {index} ({prompts[index][:40]!r}...). Shorten or drop it."
                )
            if tuple(ids[len(ids) - len(self.suffix) :]) != self.suffix:
                raise ValueError(
                    f"encode: every prompt must end in the same template tokens; got {ids[-len(self.suffix) :]} in prompt {index}, "
                    f"not {list(self.suffix)}. Remove chat markup from the prompt."
                )
        return encoded

    def _render(self, index: int, prompt: object) -> str:
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(
                f"encode: a prompt must be a text that is not empty; got {prompt!r} as prompt {index}. Drop it."
            )
        return render_chat(self.tokenizer, prompt, self.system_prompt)

    def pad(self, ids: Sequence[Sequence[int]]) -> TokenBatch:
        """`ids` padded on the left to one length, on the model's device, with the attention mask."""
        return left_pad(ids, self.tokenizer.pad_token_id, self.device)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the weights, architecture, tokenizer, template, system prompt and dtype: equal only for equal activations."""
        digest = hashlib.sha256(_architecture(self.bridge.original_model).encode())
        digest.update(_tokenizer_state(self.tokenizer).encode())
        digest.update(json.dumps([self.template, self.system_prompt, str(self.dtype)]).encode())
        if "strftime_now" in self.template:  # the tokens also depend on the date that it is told
            digest.update(render_chat(self.tokenizer, PROBES[0], self.system_prompt).encode())
        for name, parameter in self.bridge.original_model.state_dict().items():
            digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
            digest.update(_checksum(parameter))
        return digest.hexdigest()[:16]


def _architecture(model: Any) -> str:
    """The class of a Hugging Face model and its configuration, less what says where it came from and how it is run."""
    said = model.config.get_text_config().to_dict()
    kept = {name: value for name, value in said.items() if name not in _NOT_OF_THE_MODEL and not name.startswith("_")}
    return json.dumps([type(model).__name__, kept], sort_keys=True, default=str)


def load_chat_model(
    name: str | Path = BUNDLED,
    *,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    device_map: DeviceMap | None = None,
    hf_model: Any = None,
    layer: int | None = None,
    pos: int | None = None,
    system_prompt: str | None = None,
) -> ChatModel:
    """The chat model called `name`: `"bundled"`, a local Hugging Face folder, or a hub id.

    `device` defaults to CUDA where there is one, or to all GPUs where the weights do not fit into the first; `dtype`
    (also by name, such as `"bfloat16"`) to float32 on CPU, on CUDA to bfloat16 where the chip has it, else float16.
    `device_map="auto"` (instead of `device`) spreads the model over all GPUs. `hf_model`: an already
    loaded Hugging Face model, such as one in 8 or 4 bits, used as it is, neither moved nor cast; `name` then says whose
    tokenizer and defaults to take. `layer`, `pos`: the decision state; default is what the folder's
    `decision_state.json` records, else what was published for the model (`model_defaults`), else the middle of the
    depth and -2. Checked on loading: a chat template, at most one BOS at the start, the same post-instruction tokens
    for different prompts, and one masked, left-padded batch against the plain Hugging Face forward. Raises `ValueError`
    for an unknown or gated model, one without a chat template or too large for the memory, an unknown dtype, options
    that exclude each other, and a failed check.
    """
    _check_options(name, hf_model, device=device, dtype=dtype, device_map=device_map)
    source = BUNDLED_WEIGHTS if str(name) == BUNDLED else name
    tokenizer = load_tokenizer(str(name), source)
    suffix = common_suffix(tokenizer, system_prompt)
    with memory_in_one_sentence(str(name)):
        model = load_weights(str(name), source, device, dtype, device_map) if hf_model is None else hf_model
        check_placement(model)
        model.eval()
        config, place = model.config.get_text_config(), model.get_input_embeddings().weight.device
        probe = left_pad(probe_ids(tokenizer, system_prompt), tokenizer.pad_token_id, place)
        bridge = boot_bridge(str(name), model, tokenizer, probe)
    state = decision_state(str(name), source, config.num_hidden_layers, len(suffix), layer, pos)
    chat = ChatModel(
        name=str(name),
        bridge=bridge,
        tokenizer=tokenizer,
        n_layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        n_context=config.max_position_embeddings,
        decision_layer=state[0],
        decision_pos=state[1],
        decision_source=state[2],
        suffix=suffix,
        system_prompt=system_prompt,
        thinking=thinking_mode(tokenizer, system_prompt),
    )
    check_positions("load_chat_model", chat, (chat.decision_pos,))
    chat.hook_name("resid_pre", chat.decision_layer)
    return chat


def _check_options(name: str | Path, hf_model: Any, **placement: Any) -> None:
    """Raise `ValueError` for options of which only one can hold."""
    given = [option for option, value in placement.items() if value is not None]
    if hf_model is not None and given:
        raise ValueError(
            f"load_chat_model: hf_model is used as it is; got {' and '.join(given)} beside it. Choose them where it is loaded."
        )
    if hf_model is not None and str(name) == BUNDLED:
        raise ValueError(
            "load_chat_model: hf_model needs the name of its tokenizer; got none. Pass its hub id or folder as name."
        )
    if {"device", "device_map"} <= set(given):
        raise ValueError("load_chat_model: device and device_map exclude each other; got both. Leave device out.")
    check_device(placement["device"])


def check_positions(function: str, chat: ChatModel, positions: Sequence[int]) -> None:
    """Raise `ValueError` in the name of `function` unless every position is a template token, counted from the end.

    Only those are the same token for every prompt, so only there can prompts be compared.
    """
    for pos in positions:
        if not -len(chat.suffix) <= pos <= -1:
            raise ValueError(
                f"{function}: positions must lie in the template's last {len(chat.suffix)} tokens; got {pos}. "
                f"Use -{len(chat.suffix)} to -1."
            )


class _Unloaded:
    """Stands where the bridge was; any use raises."""

    def __init__(self, name: str) -> None:
        self.__dict__["name"] = name

    def __getattr__(self, attribute: str) -> Any:
        raise ValueError(
            f"ChatModel: the model must be loaded; got {self.name} after unload(). Call load_chat_model again."
        )

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.forward


def _tokenizer_state(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))


def _checksum(parameter: Tensor, chunk: int = 1 << 24) -> bytes:
    """A checksum over every bit of `parameter`, computed where it lies: position-weighted sums modulo 2^64."""
    bits = parameter.detach().contiguous().view(-1).view(torch.uint8)
    sums = []
    for start in range(0, len(bits), chunk):
        part = bits[start : start + chunk].to(torch.int64)
        weights = torch.arange(start + 1, start + len(part) + 1, device=part.device)
        sums.append(int((part * (weights * 2654435761 % 4294967291)).sum()))
    return json.dumps(sums).encode()
