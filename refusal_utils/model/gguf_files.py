"""GGUF files as ordinary Hugging Face folders: dequantized once by transformers, then loaded like any other model."""

import json
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ..checks import invalid, require
from .loading import DEQUANTIZED, FUNCTION, loading_errors, memory_errors
from .store import content_key, disk_errors

_PLAIN = ("F32", "F16", "BF16")  # a file of these types is not quantized
_STOPS = ("eos", "eot", "eom", "padding")  # a GGUF file has no list of the tokens that end a response


def dequantize(name: str, path: Path, cache: Path) -> tuple[Path, str | None]:
    """(folder in `cache` with the model in float32 and its tokenizer, quantization of the file such as Q4_K_M or None).

    The first call writes the folder, four bytes per weight; later calls find it by the file's path, size and time.
    Raises `ValueError` in the name of the model `name` if the file is damaged or of an architecture that transformers
    does not read, and without the package gguf.
    """
    with disk_errors(FUNCTION, "the cache of models must be readable and writable", cache):
        stat = path.stat()
        key = content_key(str(path.resolve()), stat.st_size, stat.st_mtime_ns, transformers.__version__)
        folder = cache / f"{path.stem}-{key[:8]}"
        if not (folder / DEQUANTIZED).is_file():
            _convert(name, path, folder)
        return folder, json.loads((folder / DEQUANTIZED).read_text(encoding="utf-8"))["quantization"]


def _convert(name: str, path: Path, folder: Path) -> None:
    """Write `folder`, whole or not at all."""
    print(f"Dequantizing {path.name} once; kept in {folder}.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as work:
        alone, new = Path(work) / "alone", Path(work) / folder.name
        alone.mkdir()
        os.symlink(path.resolve(), alone / "model.gguf")  # transformers would also read other files of its folder
        with memory_errors(name), loading_errors(name, path):
            reader = _reader(path)
            _save_model(name, alone, _stop_ids(reader), new)
            AutoTokenizer.from_pretrained(alone, gguf_file="model.gguf").save_pretrained(new)
        (new / DEQUANTIZED).write_text(json.dumps({"quantization": _quantization(reader)}), encoding="utf-8")
        if not (folder / DEQUANTIZED).is_file():  # another process may have finished it and be reading it
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(new, folder)


def _save_model(name: str, alone: Path, stops: list[int], new: Path) -> None:
    """Write the dense model, whose generation config stops at `stops`. Raises `ValueError` if weights are missing."""
    options: dict[str, Any] = {"gguf_file": "model.gguf", "dtype": torch.float32}
    config = AutoConfig.from_pretrained(alone, gguf_file="model.gguf")  # given, so that it is not read twice
    if hasattr(transformers, "GgufConfig"):  # newer versions keep the weights quantized where they can
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    loaded: Any = AutoModelForCausalLM.from_pretrained(alone, config=config, output_loading_info=True, **options)
    model, info = loaded
    missing = sorted(info["missing_keys"])
    must, got = "the file must hold the whole model", f"{name} without {', '.join(missing[:3])}"
    require(not missing, FUNCTION, must, got, "Files in several parts must be joined first.")
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    if stops:
        model.generation_config.eos_token_id = stops
    model.save_pretrained(new)


def _reader(path: Path) -> Any:
    try:
        import gguf
    except ImportError as error:
        todo = "Run pip install 'refusal-utils[gguf]'."
        raise invalid(FUNCTION, "the package gguf is needed for .gguf files", "none", todo) from error
    return gguf.GGUFReader(path)


def _stop_ids(reader: Any) -> list[int]:
    """The ids of the tokens that end a turn or a text, in the order of `_STOPS`."""
    fields = [reader.fields.get(f"tokenizer.ggml.{kind}_token_id") for kind in _STOPS]
    return list(dict.fromkeys(int(field.contents()) for field in fields if field is not None))


def _quantization(reader: Any) -> str | None:
    """The file's own name of its quantization, or that of most of its weights, or None if it has none."""
    import gguf

    sizes: Counter[str] = Counter()
    for tensor in reader.tensors:
        sizes[tensor.tensor_type.name] += int(tensor.n_elements)
    names = {int(each): each.name.partition("_")[2] for each in gguf.LlamaFileType if each.name != "GUESSED"}
    field = reader.fields.get("general.file_type")
    found = names.get(int(field.contents())) if field is not None else None
    found = found or sizes.most_common(1)[0][0]
    return None if found in _PLAIN else found
