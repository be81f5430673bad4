"""The bridge around a loaded model, checked against plain Hugging Face."""

from copy import deepcopy
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from ..checks import invalid, require
from .as_found import AsFound
from .chat_format import TokenBatch
from .plain_forward import has_cache
from .stream_writes import stream_writes

# Largest difference of logits between bridge and Hugging Face, relative to the largest logit above 1.
PARITY = {torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.5}

_FUNCTION = "load_chat_model"


def context_length(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """The most tokens a prompt may have, by the configuration or else the tokenizer (huge if unknown)."""
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
    found = [int(value) for name in names if (value := getattr(config, name, None))]
    return found[0] if found else int(tokenizer.model_max_length)


class Bridged(NamedTuple):
    """A bridge with what was found by trying: `stream_writes`, `has_cache`, and what its model was like before."""

    bridge: TransformerBridge
    writes: tuple[str, ...]
    has_cache: bool
    as_found: AsFound


def boot_bridge(name: str, model: Any, tokenizer: PreTrainedTokenizerBase, probe: TokenBatch, n_layers: int) -> Bridged:
    """The bridge around `model`, or around the language model inside a vision-language model.

    Raises `ValueError` unless the left-padded `probe` gives the logits of each prompt alone in the Hugging Face model,
    up to `PARITY`, and for an architecture that TransformerLens does not support. The model is then as it was found.
    """
    found = AsFound(model)
    try:
        model.eval()
        bridge = _checked_bridge(name, model, tokenizer, probe)
        writes = stream_writes(bridge, probe, n_layers)
        return Bridged(bridge, writes, has_cache(bridge.original_model, probe), found)
    except BaseException:
        found.restore()
        raise


def _checked_bridge(name: str, model: Any, tokenizer: PreTrainedTokenizerBase, probe: TokenBatch) -> TransformerBridge:
    real = probe.attention_mask.bool()
    must = "the model must run in transformers"
    try:
        with torch.inference_mode():
            alone = [model(ids[own][None]).logits[0] for ids, own in zip(probe.input_ids, real, strict=True)]
        must = "TransformerLens must support the architecture"
        language = _text_only(model)
        bridge = TransformerBridge.boot_transformers(
            language.config.name_or_path or name,
            hf_model=language,
            tokenizer=deepcopy(tokenizer),  # the bridge adds a BOS token to a tokenizer without one
            device=probe.input_ids.device,
        )
        with torch.inference_mode():
            actual = bridge(probe.input_ids, attention_mask=probe.attention_mask)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the type differs between architectures and versions
        got = f"{type(model).__name__} ({str(error)[:160]!r})"
        todo = "Choose another model or another version of TransformerLens."
        raise invalid(_FUNCTION, must, got, todo) from error
    _check_parity(name, torch.cat(alone), actual[real.to(actual.device)])
    return bridge


def _text_only(model: Any) -> Any:
    """The language model of a vision-language model (Gemma 3 from 4b on), sharing its weights; others unchanged."""
    inner = getattr(getattr(model, "model", None), "language_model", None)
    if inner is None:
        return model
    with torch.device("meta"):
        text = AutoModelForCausalLM.from_config(model.config.get_text_config())
    text.model, text.generation_config = inner, model.generation_config
    text.set_output_embeddings(model.get_output_embeddings())
    text.config.name_or_path = model.config.name_or_path
    return text


def _check_parity(name: str, expected: Float[Tensor, "token d_vocab"], actual: Float[Tensor, "token d_vocab"]) -> None:
    gap = float((expected.float() - actual.to(expected.device).float()).abs().max())
    bound = PARITY[expected.dtype] * max(1.0, float(expected.float().abs().max()))
    must = f"the bridge must reproduce the Hugging Face logits within {bound:.2g}"
    todo = "This architecture or version of TransformerLens is not supported."
    require(gap <= bound, _FUNCTION, must, f"a difference of {gap:.2g} for {name}", todo)
