"""Tokenizer, weights and bridge of a model from a folder or the hub; what goes wrong is said in one sentence."""

import contextlib
import os
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from .batching import is_out_of_memory
from .chat_format import TokenBatch

PARITY = {torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.5}

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
ROOM = 0.8  # the share of a GPU's memory that weights may take; the rest is for batches

DeviceMap = str | dict[str, Any]


def load_tokenizer(name: str, source: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer, with a pad token. Raises `ValueError` where it cannot be had or has no chat template."""
    tokenizer = _load(name, source, AutoTokenizer.from_pretrained)
    if not tokenizer.chat_template:
        raise ValueError(
            f"load_chat_model: the model must have a chat template; got none in {name}. Use its instruction-tuned version."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_weights(
    name: str, source: str | Path, device: str | None, dtype: torch.dtype | str | None, device_map: DeviceMap | None
) -> Any:
    """The Hugging Face model, read straight onto its device or devices.

    With neither given: the CPU, or the first GPU, or all GPUs where there are several and the first is too small.
    Raises `ValueError` where it cannot be had, and where `device_map` leaves layers off the devices.
    """
    chosen = device is not None or device_map is not None
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = as_dtype(dtype) or default_dtype(device)
    if not chosen and torch.cuda.device_count() > 1 and not _fits_one_gpu(name, source, dtype):
        device_map = "auto"
    placement = {"": device} if device_map is None else device_map
    model = _load(name, source, AutoModelForCausalLM.from_pretrained, dtype=dtype, device_map=placement)
    check_placement(model)
    return model


def _fits_one_gpu(name: str, source: str | Path, dtype: torch.dtype) -> bool:
    """Whether the weights leave the first GPU room for batches."""
    config = _load(name, source, AutoConfig.from_pretrained)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    n_weights = sum(parameter.numel() for parameter in model.parameters())
    return n_weights * dtype.itemsize <= ROOM * torch.cuda.get_device_properties(0).total_memory


def as_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """The dtype of that name; one of `DTYPES` and None as they are. Raises `ValueError` for any other.

    >>> as_dtype("bfloat16")
    torch.bfloat16
    """
    if dtype is None or dtype in DTYPES.values():
        return dtype  # type: ignore[return-value]
    if dtype not in DTYPES:
        raise ValueError(
            f"load_chat_model: dtype must be one of {', '.join(DTYPES)}; got {dtype!r}. "
            "Leave it out (DTYPE = None) for the default of the device."
        )
    return DTYPES[str(dtype)]


def check_device(device: str | None) -> None:
    """Raise `ValueError` for a device that torch does not know, or that is not here."""
    try:
        if device is not None:
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"load_chat_model: the device must be there; got {device!r} ({str(error).splitlines()[0][:100]}). "
            "Use 'cpu', or leave it out for the default."
        ) from error


def default_dtype(device: str) -> torch.dtype:
    """float32 on CPU; on CUDA bfloat16 from compute capability 8 on, else float16."""
    if torch.device(device).type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


def check_placement(model: Any) -> None:
    """Raise `ValueError` where some layers of `model` lie outside the devices that compute: hooks cannot reach them."""
    places = {str(place) for place in (getattr(model, "hf_device_map", None) or {}).values()}
    outside = places & ({"disk", "meta"} | ({"cpu"} if len(places) > 1 else set()))
    if outside:
        raise ValueError(
            f"load_chat_model: every layer must fit on the devices that compute; got some offloaded to {', '.join(sorted(outside))}. "
            "Use more memory, a smaller model, or a model loaded in 8 or 4 bits as hf_model."
        )


def text_only(model: Any) -> Any:
    """The language model inside a model that also sees (Gemma 3 from 4b on), sharing its weights; others as they are."""
    inner = getattr(getattr(model, "model", None), "language_model", None)
    if inner is None:
        return model
    with torch.device("meta"):
        text = AutoModelForCausalLM.from_config(model.config.get_text_config())
    text.model, text.generation_config = inner, model.generation_config
    text.set_output_embeddings(model.get_output_embeddings())
    text.config.name_or_path = model.config.name_or_path
    return text


def boot_bridge(name: str, model: Any, tokenizer: PreTrainedTokenizerBase, probe: TokenBatch) -> TransformerBridge:
    """The bridge around `model`, checked: on one left-padded batch it must give the logits of each prompt alone.

    Quantized weights stay as they are, and are checked the same way: bridge against model, both quantized. Of a model
    that also sees the language model is taken, and must give the logits of the whole. Raises `ValueError` for a gap
    above `PARITY` and for an architecture that the bridge does not know.
    """
    real = probe.attention_mask.bool()
    with torch.inference_mode():
        alone = [model(ids[own][None]).logits[0] for ids, own in zip(probe.input_ids, real, strict=True)]
    try:
        model = text_only(model)
        # A copy, since the bridge gives its tokenizer a BOS token where the model has none.
        bridge = TransformerBridge.boot_transformers(
            model.config.name_or_path or name,
            hf_model=model,
            tokenizer=deepcopy(tokenizer),
            device=probe.input_ids.device,
        )
        with torch.inference_mode():
            actual = bridge(probe.input_ids, attention_mask=probe.attention_mask)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of whatever kind: it differs between architectures and versions
        raise ValueError(
            f"load_chat_model: TransformerLens must support the architecture; got {type(model).__name__}, where it says "
            f"{str(error)[:160]!r}. Choose another model or another version of TransformerLens."
        ) from error
    _check_parity(name, torch.cat(alone), actual[real.to(actual.device)])
    return bridge


def _check_parity(name: str, expected: Float[Tensor, "token d_vocab"], actual: Float[Tensor, "token d_vocab"]) -> None:
    """The bridge must give, on every real token of a left-padded batch, what Hugging Face gives for each prompt alone."""
    gap = float((expected.float() - actual.to(expected.device).float()).abs().max())
    bound = PARITY[expected.dtype] * max(1.0, float(expected.float().abs().max()))
    if not gap <= bound:
        raise ValueError(
            f"load_chat_model: the bridge must reproduce the Hugging Face logits within {bound:.2g}; got a gap of {gap:.2g} for {name}. "
            "This architecture or version of TransformerLens is not supported."
        )


@contextlib.contextmanager
def memory_in_one_sentence(name: str) -> Iterator[None]:
    """Raise `ValueError` that says what to do where memory runs out in the block that loads the model `name`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ValueError(
            f"load_chat_model: the model must fit into memory; got {name}, which does not ({str(error)[:100]}). "
            "Take a smaller model or a larger device, or pass a model that is loaded in 8 or 4 bits as hf_model."
        ) from error


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """Hide the hub's own progress bars and warnings: what goes wrong is said in our words."""
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _load(name: str, source: str | Path, loader: Any, **options: Any) -> Any:
    if isinstance(source, Path) or (os.sep in str(source) and str(source).startswith((".", os.sep, "~"))):
        source = Path(source).expanduser()
        if not (source / "config.json").is_file():
            raise ValueError(
                f"load_chat_model: the model must exist; got no config.json in {source}. Give a Hugging Face folder."
            )
    try:
        with _quiet_hub():
            return loader(source, **options)
    except (OSError, ValueError, RuntimeError, AssertionError, LookupError, TypeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        text = str(error).strip() or type(error).__name__
        said = text.replace(name, "").lower()  # a name may hold any word
        if any(words in said for words in ("gated repo", "401 client", "403 client")):
            must, todo = "a gated model needs access", "Accept its licence on the hub and set HF_TOKEN."
        elif Path(source).is_dir():
            must, todo = "the folder must hold a whole model", "Copy or download it again."
        else:
            must, todo = (
                "the model must be 'bundled', a folder or a hub id",
                "Check the spelling, and that the hub can be reached.",
            )
        raise ValueError(f"load_chat_model: {must}; got {name!r} ({text.splitlines()[0][:160]}). {todo}") from error
