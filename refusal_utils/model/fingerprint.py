"""A hash of everything that decides a chat model's activations: weights, architecture, tokenizer, template, dtype."""

import hashlib
import json
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .chat_format import PROBES, render_chat

_NOT_OF_THE_MODEL = ("dtype", "torch_dtype", "transformers_version", "use_cache")
_CHUNK = 1 << 21  # 64-bit words summed at once, so that large matrices need little extra memory


def fingerprint(model: Any, tokenizer: PreTrainedTokenizerBase, system_prompt: str | None, dtype: torch.dtype) -> str:
    """Sixteen hexadecimal digits that are equal only for equal activations of equal prompts.

    `model` is the Hugging Face model. A rendered prompt is included because a template may insert a fixed date.
    """
    rendered = render_chat(tokenizer, PROBES[0], system_prompt)
    parts = [_architecture(model), _tokenizer_state(tokenizer), tokenizer.chat_template, system_prompt, rendered]
    digest = hashlib.sha256(json.dumps([*parts, str(dtype)]).encode())
    seen: set[tuple[Any, ...]] = set()
    for name, values in model.state_dict().items():
        place = (values.data_ptr(), tuple(values.shape), values.stride(), values.dtype)
        if place not in seen:  # TransformerLens lists each weight under several names
            digest.update(f"{name} {tuple(values.shape)} {values.dtype} {_checksums(values)}".encode())
        seen.add(place)
    return digest.hexdigest()[:16]


def _architecture(model: Any) -> str:
    """The class and configuration of a model, without its origin and the way it is run."""
    config = model.config.get_text_config().to_dict()
    kept = {name: value for name, value in config.items() if name not in _NOT_OF_THE_MODEL and name[0] != "_"}
    return json.dumps([type(model).__name__, kept], sort_keys=True, default=str)


def _tokenizer_state(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))


def _checksums(values: Tensor) -> list[int]:
    """Sums over the bits of `values`, computed on its own device.

    Each 64-bit word is multiplied by an odd number that depends on its place, modulo 2^64. That is invertible, so a
    change of one word changes the sum.
    """
    bits = values.detach().contiguous().view(-1).view(torch.uint8)
    words = torch.nn.functional.pad(bits, (0, -len(bits) % 8)).view(torch.int64)
    odd = torch.arange(min(len(words), _CHUNK), device=words.device) * 0x5851F42D4C957F2D
    odd = (odd ^ (odd >> 31)) | 1
    return [int((part * odd[: len(part)]).sum()) for part in words.split(_CHUNK)]
