"""Tokenizer and weights of a model from a folder or the hub, with errors that name what to do."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from ..checks import invalid, require, require_known
from .batching import is_out_of_memory

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ROOM = 0.8  # share of a GPU's memory that weights may take; the rest is for batches

FUNCTION = "load_chat_model"
DEQUANTIZED = "dequantized.json"  # marks a folder that was made of a GGUF file


def load_tokenizer(name: str, source: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer, with a pad token. Raises `ValueError` if it cannot be loaded or has no chat template."""
    tokenizer = _load(name, source, AutoTokenizer.from_pretrained)
    todo = "Use its instruction-tuned version."
    require(bool(tokenizer.chat_template), FUNCTION, "the model must have a chat template", f"none in {name}", todo)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_config(name: str, source: str | Path) -> Any:
    """The model's configuration. Raises `ValueError` if it cannot be loaded."""
    return _load(name, source, AutoConfig.from_pretrained)


def load_weights(
    name: str, source: str | Path, device: str | None, dtype: torch.dtype | str | None, device_map: Any
) -> Any:
    """The Hugging Face model, loaded directly onto its device or devices. Raises `ValueError` if that fails."""
    chosen = device is not None or device_map is not None
    device = device or _default_device()
    dtype = default_dtype(device) if dtype is None else _known_dtype(dtype)
    if not chosen and torch.cuda.device_count() > 1 and not _fits_one_gpu(name, source, dtype):
        device_map = "auto"
    placement = {"": device} if device_map is None else device_map
    return _load(name, source, AutoModelForCausalLM.from_pretrained, dtype=dtype, device_map=placement)


def is_plain(device: str | None = None, dtype: torch.dtype | str | None = None, **options: Any) -> bool:
    """Whether a model loaded with these options is as it comes, and in float32.

    Half precision, the default on a GPU, rounds its numbers.
    """
    given = default_dtype(device or _default_device()) if dtype is None else _known_dtype(dtype)
    return given == torch.float32 and all(value is None for value in options.values())


def check_device(device: str | None) -> None:
    """Raise `ValueError` for a device that torch does not know or that is not available."""
    try:
        if device is not None:
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        got = f"{device!r} ({str(error).splitlines()[0][:100]})"
        todo = "Use 'cpu', or leave it out for the default."
        raise invalid(FUNCTION, "the device must be available", got, todo) from error


def default_dtype(device: str) -> torch.dtype:
    """float32 on the CPU; on CUDA bfloat16 from compute capability 8 on, else float16."""
    if torch.device(device).type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


def has_fast_bfloat16() -> bool:
    """Whether models run on this machine's CPU, and it multiplies in bfloat16 in hardware (AMX or AVX512-BF16)."""
    able = torch.cpu.get_capabilities()
    return _default_device() == "cpu" and any(able.get(name) for name in ("amx_bf16", "avx512_bf16"))


def check_placement(model: Any) -> None:
    """Raise `ValueError` if some layers of `model` are offloaded, because hooks cannot reach them."""
    places = {str(place) for place in (getattr(model, "hf_device_map", None) or {}).values()}
    outside = places & ({"disk", "meta"} | ({"cpu"} if len(places) > 1 else set()))
    got = f"some offloaded to {', '.join(sorted(outside))}"
    todo = "Use more memory, a smaller model, or a model loaded in 8 or 4 bits as hf_model."
    require(not outside, FUNCTION, "every layer must fit on the devices that compute", got, todo)


def _default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextlib.contextmanager
def loading_errors(name: str, source: str | Path) -> Iterator[None]:
    """Raise a `ValueError` that names the cause for the many errors of loading in the block; hide the hub's bars."""
    try:
        with _quiet_hub():
            yield
    except (OSError, ValueError, RuntimeError, AssertionError, LookupError, TypeError, SafetensorError) as error:
        text = str(error).strip() or type(error).__name__
        if is_out_of_memory(error) or text.startswith(f"{FUNCTION}: "):
            raise
        must, todo = _cause(text.replace(name, "").lower(), source)  # a name may contain any word
        raise invalid(FUNCTION, must, f"{name!r} ({text.splitlines()[0][:160]})", todo) from error


@contextlib.contextmanager
def memory_errors(name: str) -> Iterator[None]:
    """Raise `ValueError` with advice if memory runs out in the block that loads the model `name`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        got = f"{name}, which does not ({str(error)[:100]})"
        todo = "Use a smaller model or a larger device, or pass a model loaded in 8 or 4 bits as hf_model."
        raise invalid(FUNCTION, "the model must fit into memory", got, todo) from error


def _known_dtype(dtype: torch.dtype | str) -> torch.dtype:
    known = {str(each).removeprefix("torch."): each for each in DTYPES}
    name = str(dtype).removeprefix("torch.")
    require_known(
        FUNCTION,
        "dtype",
        name if name in known else dtype,
        known,
        "Leave it out (DTYPE = None) for the default of the device.",
    )
    return known[name]


def _fits_one_gpu(name: str, source: str | Path, dtype: torch.dtype) -> bool:
    """Whether the weights leave room for batches on the first GPU."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(load_config(name, source))
    n_weights = sum(parameter.numel() for parameter in model.parameters())
    return n_weights * dtype.itemsize <= ROOM * torch.cuda.get_device_properties(0).total_memory


def _load(name: str, source: str | Path, loader: Any, **options: Any) -> Any:
    """`loader(source)`, with its errors as those of `loading_errors`."""
    if isinstance(source, Path) or (os.sep in str(source) and str(source).startswith((".", os.sep, "~"))):
        source = Path(source).expanduser()
        found, todo = (source / "config.json").is_file(), "Give a Hugging Face folder."
        require(found, FUNCTION, "the model must exist", f"no config.json in {source}", todo)
    with loading_errors(name, source):
        return loader(source, **options)


def _cause(text: str, source: str | Path) -> tuple[str, str]:
    """(what must hold, what to do) for the message of a loading error."""
    unknown = "repository not found" in text  # the hub answers 401 for what does not exist, and speaks of gated ones
    if not unknown and any(words in text for words in ("gated repo", "401 client", "403 client")):
        return "a gated model needs access", "Accept its licence on the hub and set HF_TOKEN."
    if "no space left" in text:
        return "the disk must have room for the model", "Free space, or set HF_HOME to a folder on another disk."
    if Path(source).is_file():
        return (
            "the file must be a whole GGUF file that transformers can read",
            "Download it again, or use another model.",
        )
    if (Path(source) / DEQUANTIZED).is_file():
        return "the dequantized copy must be whole", f"Delete {source}; it will be written again."
    if Path(source).is_dir():
        return "the folder must hold a whole model", "Copy or download it again."
    if str(source).lower().endswith("gguf"):
        return (
            "a GGUF model must be named as Owner/Repo-GGUF:file.gguf",
            "Check the names, and that the hub can be reached.",
        )
    return "the model must be 'bundled', a folder or a hub id", "Check the spelling, and that the hub can be reached."


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """Hide the hub's own progress bars and warnings; errors are reported by `_load`."""
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
