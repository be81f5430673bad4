"""Tiny files of every kind of sparse autoencoder, all made from the same weights."""

import json
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from refusal_utils.latents import SparseAutoencoder

D_MODEL, N, LAYER, K = 8, 32, 15, 4


def weights(seed: int = 0, d_model: int = D_MODEL, n: int = N) -> dict[str, torch.Tensor]:
    """Encoder, decoder, biases and positive thresholds."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"w_enc": (d_model, n), "b_enc": (n,), "w_dec": (n, d_model), "b_dec": (d_model,)}
    made = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    return made | {"threshold": torch.rand(n, generator=generator)}


def sae(**changes) -> SparseAutoencoder:
    return SparseAutoencoder(**{**weights(), "layer": LAYER, **changes})


def _written(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(text))


def gemma_scope(folder: Path, own: dict[str, torch.Tensor]) -> Path:
    place = folder / f"layer_{LAYER}" / "width_16k" / "average_l0_91"
    place.mkdir(parents=True)
    np.savez(
        place / "params.npz",
        **{(name.capitalize() if name[0] == "w" else name): each.numpy() for name, each in own.items()},
    )
    return place


def gemma_scope_2(folder: Path, own: dict[str, torch.Tensor], **changes) -> Path:
    hook = f"model.layers.{LAYER}.output"
    config = {
        "hf_hook_point_in": hook,
        "hf_hook_point_out": hook,
        "width": N,
        "model_name": "gemma-v3",
        "architecture": "jump_relu",
    }
    _written(folder / "config.json", {**config, **changes})
    safetensors.torch.save_file(own, folder / "params.safetensors")
    return folder


def dictionary_learning(folder: Path, own: dict[str, torch.Tensor], threshold: float = 0.5, **changes) -> Path:
    trainer = {
        "dict_class": "BatchTopKSAE",
        "layer": LAYER,
        "k": K,
        "lm_name": "llama",
        "submodule_name": f"resid_post_layer_{LAYER}",
    }
    _written(folder / "config.json", {"trainer": {**trainer, **changes}})
    tensors = {"encoder.weight": own["w_enc"].T.contiguous(), "decoder.weight": own["w_dec"].T.contiguous()}
    tensors |= {"encoder.bias": own["b_enc"], "b_dec": own["b_dec"]}
    torch.save({**tensors, "k": torch.tensor(K), "threshold": torch.tensor(threshold)}, folder / "ae.pt")
    return folder


def qwen_scope(folder: Path, own: dict[str, torch.Tensor]) -> Path:
    place = folder / f"SAE-Res-Qwen3-W32K-L0_{K}"
    place.mkdir()
    turned = {"W_enc": own["w_enc"].T.contiguous(), "W_dec": own["w_dec"].T.contiguous()}
    torch.save({**turned, "b_enc": own["b_enc"], "b_dec": own["b_dec"]}, place / f"layer{LAYER}.sae.pt")
    return place / f"layer{LAYER}.sae.pt"


def llama_scope(folder: Path, own: dict[str, torch.Tensor], threshold: float = 0.5, norm: float = 5.0) -> Path:
    config = {"jump_relu_threshold": threshold, "dataset_average_activation_norm": {"in": norm, "out": norm}}
    _written(
        folder / "hyperparams.json", {**config, "hook_point_in": f"blocks.{LAYER}.hook_resid_post", "d_model": D_MODEL}
    )
    (folder / "checkpoints").mkdir()
    tensors = {"encoder.weight": own["w_enc"].T.contiguous(), "decoder.weight": own["w_dec"].T.contiguous()}
    tensors |= {"encoder.bias": own["b_enc"], "decoder.bias": own["b_dec"]}
    safetensors.torch.save_file(tensors, folder / "checkpoints" / "final.safetensors")
    return folder


def sae_lens(folder: Path, own: dict[str, torch.Tensor], **changes) -> Path:
    config = {
        "architecture": "jumprelu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "d_in": D_MODEL,
        "d_sae": N,
    }
    config["metadata"] = {"hook_name": f"blocks.{LAYER}.hook_resid_post", "model_name": "m"}
    _written(folder / "cfg.json", {**config, **changes})
    named = {(name.capitalize().replace("W_", "W_") if name[0] == "w" else name): each for name, each in own.items()}
    safetensors.torch.save_file(named, folder / "sae_weights.safetensors")
    return folder


WRITERS = {
    "gemma_scope": gemma_scope,
    "gemma_scope_2": gemma_scope_2,
    "dictionary_learning": dictionary_learning,
    "qwen_scope": qwen_scope,
    "llama_scope": llama_scope,
    "sae_lens": sae_lens,
}
