"""Files of published sparse autoencoders: one reader for each kind, none of which guesses what a file is."""

import json
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..checks import invalid, require, require_known
from .sae import SparseAutoencoder

FUNCTION = "load_sae"
Read = dict[str, Any]
NAMES = ("w_enc", "b_enc", "w_dec", "b_dec", "threshold")
UNREADABLE = (zipfile.BadZipFile, pickle.UnpicklingError, SafetensorError, EOFError, OSError, RuntimeError)


def load_sae(
    path: str | Path, kind: str, *, layer: int | None = None, k: int | None = None, dtype: torch.dtype = torch.float32
) -> SparseAutoencoder:
    """The sparse autoencoder in a folder or file of the given kind, one of `KINDS`.

    `layer`: the block whose output it reads, if the file does not say. `k`: how many latents fire, for files that keep
    the k largest; it is also what a BatchTopK file needs whose threshold was never set. Nothing is unpickled.

    Raises `ValueError` for an unknown kind, for a file that is missing, damaged or of another kind, for a layer or k
    that neither the file nor the caller gives, and for a threshold that was never set.
    """
    require_known(FUNCTION, "kind", kind, KINDS)
    place = Path(path).expanduser()
    require(place.exists(), FUNCTION, "the file or folder must exist", f"no {place}", "Check the path.")
    try:
        found = KINDS[kind](place)
    except KeyError as error:
        got, todo = f"{place} without {error}", "Declare another kind, or fetch it again."
        raise invalid(FUNCTION, f"the file must have the names of the kind {kind}", got, todo) from error
    return _built(found, kind, layer, k, dtype)


def _built(found: Read, kind: str, layer: int | None, k: int | None, dtype: torch.dtype) -> SparseAutoencoder:
    told = found.pop("layer", None)
    must, got = "the layer of the file must be the one asked for", f"{told} for {layer}"
    require(told is None or layer in (None, told), FUNCTION, must, got, "Leave layer out, or load another file.")
    where = told if layer is None else layer
    require(where is not None, FUNCTION, f"a {kind} file does not say its layer", "no layer", "Pass layer=...")
    if k is not None or (found.get("threshold") is None and found.get("k") is None):
        must, todo = "this file keeps the k largest latents, so k is needed", "Pass k=..., as in the file's name."
        require(k is not None, FUNCTION, must, "none", todo)
        found |= {"k": k, "threshold": None}
    weights: Read = {name: each.to(dtype) if isinstance(each, Tensor) else each for name, each in found.items()}
    return SparseAutoencoder(**weights, layer=where)


def _gemma_scope(place: Path) -> Read:
    """Gemma Scope: `params.npz`, JumpReLU with a threshold for each latent; the layer is in the folder's name."""
    arrays = _whole(_file(place, "params.npz"), _arrays)
    return {**_named(arrays), "layer": _number(r"layer_(\d+)", str(place.resolve()))}


def _gemma_scope_2(place: Path) -> Read:
    """Gemma Scope 2: `params.safetensors` and `config.json`, JumpReLU; transcoders are refused."""
    config, tensors = _config(place, "config.json"), _tensors(place, "params.safetensors")
    reads, writes = config["hf_hook_point_in"], config["hf_hook_point_out"]
    plain = reads == writes and "affine_skip_connection" not in tensors
    must, todo = "an SAE must reconstruct what it reads", "Use a file under resid_post."
    require(plain, FUNCTION, must, f"{reads} to {writes}", todo)
    layer = _layer(r"model\.layers\.(\d+)\.output", reads)
    return {**_named(tensors), "layer": layer, "model": config.get("model_name", "")}


def _dictionary_learning(place: Path) -> Read:
    """dictionary_learning's BatchTopK: `ae.pt` and `config.json`; one threshold for all latents, -1 if never set."""
    config = _config(place, "config.json")["trainer"]
    require_known(
        FUNCTION, "the class of the SAE", config["dict_class"], ["BatchTopKSAE"], "Others fire by other rules."
    )
    tensors = _whole(_file(place, "ae.pt"), _unpickled)
    found = _turned(tensors, "encoder.weight", "decoder.weight")
    found |= {"b_enc": tensors["encoder.bias"], "b_dec": tensors["b_dec"], "subtracts_bias": True}
    found |= {"layer": int(config["layer"]), "model": config.get("lm_name", "")}
    threshold = float(tensors["threshold"])
    return found | ({"threshold": torch.full_like(found["b_enc"], threshold)} if threshold >= 0 else {})


def _qwen_scope(place: Path) -> Read:
    """Qwen-Scope: `layer{n}.sae.pt`; the k largest latents fire, and k is in the repository's name."""
    require(place.is_file(), FUNCTION, "a qwen_scope file must be named itself", place, "Pass .../layer{n}.sae.pt.")
    tensors = _whole(place, _unpickled)
    found = _turned(tensors, "W_enc", "W_dec") | {"b_enc": tensors["b_enc"], "b_dec": tensors["b_dec"]}
    told = _number(r"L0_(\d+)", str(place.resolve()))
    return {**found, "layer": _number(r"layer(\d+)\.sae", place.name), "k": told}


def _llama_scope(place: Path) -> Read:
    """Llama Scope: `checkpoints/final.safetensors` and `hyperparams.json`; weights take up the scaling of inputs."""
    config, tensors = _config(place, "hyperparams.json"), _tensors(place, "checkpoints/final.safetensors")
    found = {name: each.float() for name, each in _turned(tensors, "encoder.weight", "decoder.weight").items()}
    scale = len(found["w_enc"]) ** 0.5 / config["dataset_average_activation_norm"]["in"]
    threshold = torch.full((len(tensors["encoder.bias"]),), config["jump_relu_threshold"] * scale)
    layer = _layer(r"blocks\.(\d+)\.hook_resid_post", config["hook_point_in"])
    biases = {"b_enc": tensors["encoder.bias"], "b_dec": tensors["decoder.bias"].float() / scale}
    weights = {"w_enc": found["w_enc"] * scale, "w_dec": found["w_dec"] / scale}
    return {**weights, **biases, "threshold": threshold, "layer": layer}


def _sae_lens(place: Path) -> Read:
    """A folder that SAELens saved: `cfg.json` and `sae_weights.safetensors`; standard, JumpReLU or top-k."""
    config, tensors = _config(place, "cfg.json"), _tensors(place, "sae_weights.safetensors")
    require_known(FUNCTION, "the architecture", config["architecture"], ["standard", "jumprelu", "topk"])
    scaling, todo = config.get("normalize_activations", "none"), "Fold the scaling into the weights before saving."
    require(scaling == "none", FUNCTION, "an SAE must read states as they are", f"scaling {scaling}", todo)
    told = config.get("metadata", config)
    layer = _layer(r"blocks\.(\d+)\.hook_resid_(?:pre|post)", told["hook_name"])
    found = _named(tensors) | {"layer": layer, "hook": told["hook_name"].split("hook_")[1]}
    found |= {"subtracts_bias": bool(config["apply_b_dec_to_input"]), "model": told.get("model_name") or ""}
    if config["architecture"] == "topk":
        return {**found, "k": int(config["k"])}
    return {"threshold": torch.zeros_like(found["b_enc"]), **found}


KINDS: dict[str, Callable[[Path], Read]] = {
    "gemma_scope": _gemma_scope,
    "gemma_scope_2": _gemma_scope_2,
    "dictionary_learning": _dictionary_learning,
    "qwen_scope": _qwen_scope,
    "llama_scope": _llama_scope,
    "sae_lens": _sae_lens,
}


def _named(tensors: Mapping[str, Tensor]) -> Read:
    """The weights under their names here; a threshold only if there is one."""
    lower = {name.lower(): each for name, each in tensors.items()}
    return {name: lower[name] for name in NAMES if name in lower or name != "threshold"}


def _turned(tensors: Mapping[str, Tensor], encoder: str, decoder: str) -> Read:
    """The matrices of a file that stores them as PyTorch's linear layers do, the other way round."""
    return {"w_enc": tensors[encoder].T.contiguous(), "w_dec": tensors[decoder].T.contiguous()}


def _config(place: Path, name: str) -> Any:
    return _whole(_file(place, name), lambda path: json.loads(path.read_text(encoding="utf-8")))


def _tensors(place: Path, name: str) -> dict[str, Tensor]:
    return _whole(_file(place, name), lambda path: safetensors.torch.load(path.read_bytes()))


def _arrays(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
        return {name: torch.from_numpy(data[name]) for name in data.files}


def _unpickled(path: Path) -> dict[str, Tensor]:
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def _whole(path: Path, read: Callable[[Path], Any]) -> Any:
    """What `read` makes of a file, with one error for all ways in which a file can be damaged."""
    try:
        return read(path)
    except (*UNREADABLE, ValueError) as error:
        got, todo = f"{path} ({type(error).__name__})", "Fetch it again, or declare another kind."
        raise invalid(FUNCTION, "the file must be whole, and of the kind declared", got, todo) from error


def _file(place: Path, name: str) -> Path:
    """The file called `name` in a folder; in the folder of `place` if that is a file."""
    found = (place if place.is_dir() else place.parent) / name
    require(found.is_file(), FUNCTION, f"the folder must hold {name}", f"no {found}", "Check the path and the kind.")
    return found


def _layer(pattern: str, hook: str) -> int:
    found = re.fullmatch(pattern, hook)
    if found is None:
        raise invalid(FUNCTION, "an SAE must read the residual stream between blocks", hook, "Load another file.")
    return int(found[1])


def _number(pattern: str, text: str) -> int | None:
    numbers = re.findall(pattern, text)
    return int(numbers[-1]) if numbers else None
