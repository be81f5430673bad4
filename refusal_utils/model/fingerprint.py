"""A hash of everything that decides a chat model's activations: weights, architecture, tokenizer, template, dtype.

It is computed again at every use, so that an edit of weights in place, an adapter that was switched on or another
chat template gives another hash. That costs about as much as one pass over the weights in memory.
"""

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .chat_format import PROBES, render_chat

_NOT_OF_THE_MODEL = ("dtype", "torch_dtype", "transformers_version", "use_cache")
_OF_TORCH = {*vars(nn.Module()), "_is_hf_initialized", "gradient_checkpointing"}  # attributes that compute nothing
_WORDS = 1 << 17  # 64-bit words that are summed together: few enough to stay in a CPU's cache
_WRAPPER = "._original_component"  # what TransformerLens adds to the names of modules


def fingerprint(model: Any, tokenizer: PreTrainedTokenizerBase, system_prompt: str | None, dtype: torch.dtype) -> str:
    """Sixteen hexadecimal digits that are equal only for equal activations of equal prompts.

    `model` is the Hugging Face model. A rendered prompt is included because a template may insert a fixed date.
    """
    rendered = render_chat(tokenizer, PROBES[0], system_prompt)
    parts = [_architecture(model), _tokenizer_state(tokenizer), tokenizer.chat_template, system_prompt, rendered]
    digest = hashlib.sha256(json.dumps([*parts, str(dtype), *_modules(model)]).encode())
    seen: set[tuple[Any, ...]] = set()
    for name, values in _tensors(model):
        place = (values.data_ptr(), tuple(values.shape), values.stride(), values.dtype)
        if place not in seen:  # TransformerLens lists each weight under several names
            digest.update(f"{name} {tuple(values.shape)} {values.dtype} {_checksums(values)}".encode())
        seen.add(place)
    return digest.hexdigest()[:16]


def signature(model: nn.Module) -> tuple[Any, ...]:
    """What changes when weights are edited, replaced or added: a glance of milliseconds for results kept in memory.

    It misses edits that touch few entries behind torch's back (`.data`), which `fingerprint` sees.
    """
    places: dict[tuple[Any, ...], tuple[str, int]] = {}
    samples: dict[torch.device, list[Tensor]] = {}
    for name, values in _tensors(model):
        place = (values.data_ptr(), tuple(values.shape), values.stride(), values.dtype)
        if place not in places and values.numel():  # TransformerLens lists each weight under several names
            places[place] = (name, values._version)
            samples.setdefault(values.device, []).append(_sample(values))
    read = [torch.cat(each).cpu().numpy().tobytes() for each in samples.values()]  # one transfer from each device
    return (*places.items(), *read)


def _sample(values: Tensor) -> Tensor:
    return values.detach().flatten()[:: max(1, values.numel() // 16)][:16].float()


def _architecture(model: Any) -> str:
    """The class and configuration of a model, without its origin and the way it is run."""
    config = model.config.get_text_config().to_dict()
    kept = {name: value for name, value in config.items() if name not in _NOT_OF_THE_MODEL and name[0] != "_"}
    return json.dumps([type(model).__name__, kept], sort_keys=True, default=str)


def _tokenizer_state(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))


def _modules(model: nn.Module) -> list[list[Any]]:
    """Class and settings of every module: an adapter changes one of them, even if its weights stay the same."""
    return [
        [name.replace(_WRAPPER, ""), type(module).__qualname__, _settings(module)]
        for name, module in model.named_modules()
        if not type(module).__module__.startswith("transformer_lens")
    ]


def _settings(module: nn.Module) -> dict[str, Any]:
    """The numbers, switches and words among a module's attributes, such as the scale of an adapter."""
    if isinstance(module, PreTrainedModel):  # these have a configuration, and attributes about their origin
        return {}
    own = {name: value for name, value in vars(module).items() if name not in _OF_TORCH and "cached" not in name}
    return {name: repr(value) for name, value in sorted(own.items()) if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return isinstance(value, bool | int | float | str) or (
        isinstance(value, list | tuple) and all(map(_is_plain, value))
    )


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Weights and buffers. Frequencies that a forward pass may rewrite by the length of its prompts are left out."""
    yield from model.state_dict().items()
    for name, module in model.named_modules():
        if getattr(module, "rope_type", None) not in ("dynamic", "longrope"):
            own = module.named_buffers(name.replace(_WRAPPER, ""), recurse=False)
            yield from (each for each in own if isinstance(each[1], Tensor))


def _checksums(values: Tensor) -> list[int]:
    """Sums over the bits of `values`, computed on its own device.

    Each 64-bit word is multiplied by an odd number that depends on its place, modulo 2^64. That is invertible, so a
    change of one word changes the sum.
    """
    bits = values.detach().contiguous().view(-1).view(torch.uint8)
    if len(bits) % 8:
        bits = torch.nn.functional.pad(bits, (0, -len(bits) % 8))
    words, odd = bits.view(torch.int64), _odd_numbers(values.device)
    whole, rest = words[: len(words) // _WORDS * _WORDS], words[len(words) // _WORDS * _WORDS :]
    together = 1 if values.device.type == "cpu" else 128
    sums = [(rows * odd).sum(1) for rows in whole.view(-1, _WORDS).split(together)] if len(whole) else []
    return torch.cat([*sums, (rest * odd[: len(rest)]).sum()[None]]).tolist()


@lru_cache
def _odd_numbers(device: torch.device) -> Int64[Tensor, " word"]:
    with torch.inference_mode(False):
        odd = torch.arange(_WORDS, device=device) * 0x5851F42D4C957F2D
        return (odd ^ (odd >> 31)) | 1
