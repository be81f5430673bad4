"""Training sparse autoencoders on a model's own states, with SAELens as the trainer."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import invalid, require, require_known
from ..model.chat_model import ChatModel
from ..model.store import content_key, one_at_a_time
from ..steering.given_responses import GivenResponse
from .files import load_sae
from .sae import SparseAutoencoder
from .token_states import decision_places, token_states

FUNCTION = "train_sae"
CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"  # SAELens' names
ARCHITECTURES = ("topk", "jumprelu")
N_LATENTS, L0 = 2048, 32  # by default
N_SAMPLES, BATCH = 1_000_000, 256
LEARNING_RATE = 2e-3
SHARE = 0.5  # of each batch: decision states


def train_sae(
    chat: ChatModel,
    given: Sequence[GivenResponse],
    layers: Sequence[int],
    folder: str | Path,
    *,
    architecture: str = "topk",
    n_latents: int = N_LATENTS,
    l0: int = L0,
    n_samples: int = N_SAMPLES,
    seed: int = 0,
    cache_dir: str | Path | None = None,
) -> dict[int, SparseAutoencoder]:
    """Autoencoders of the outputs of blocks, by layer, trained on all tokens of `given` and saved under `folder`.

    `architecture`: one of `ARCHITECTURES`, with `l0` latents that fire at a state (jumprelu: about as many). States
    above ten times the median norm are left out. `n_samples`: states seen, each as often as needed. A folder
    `layer_{n}` is one of SAELens' (kind `sae_lens`), with weights in float16; what is returned is read from it.
    Training is on the model's device. A killed run resumes: a whole folder of the same chats and options is not trained
    again, and `cache_dir` keeps the states.

    Raises `ValueError` for another architecture, numbers below 1, a missing SAELens, and as `token_states` does.
    """
    require_known(FUNCTION, "architecture", architecture, ARCHITECTURES)
    for name, value in {"n_latents": n_latents, "l0": l0, "n_samples": n_samples}.items():
        require(value >= 1, FUNCTION, f"{name} must be at least 1", value, "Pass a larger one.")
    require(l0 <= n_latents, FUNCTION, f"l0 must be at most n_latents, {n_latents}", l0, "Pass a smaller one.")
    options = (architecture, n_latents, l0, n_samples, seed)
    source = chat.fingerprint, str(chat.dtype), chat.decision_pos, [[each.ids, each.n_response] for each in given]
    with one_at_a_time(folder, FUNCTION):
        todo = {layer: content_key(layer, *options, *source) for layer in layers}
        todo = {layer: key for layer, key in todo.items() if not _is_whole(Path(folder) / f"layer_{layer}", key)}
        states = token_states(chat, given, layers, cache_dir=cache_dir, progress=True) if todo else None
        places = torch.tensor(decision_places(given, chat.decision_pos))
        for layer, key in todo.items():
            assert states is not None
            own, decision = states.values[layer][states.usual(layer)], states.values[layer][places]
            trained = _trained(own, decision, *options, device=str(chat.device))
            _save(trained, Path(folder) / f"layer_{layer}", layer, chat.short_name, key)
    return {layer: load_sae(Path(folder) / f"layer_{layer}", "sae_lens") for layer in layers}


def _trained(
    states: Float[Tensor, "token d_model"],
    decision: Float[Tensor, "prompt d_model"],
    architecture: str,
    n_latents: int,
    l0: int,
    n_samples: int,
    seed: int,
    device: str = "cpu",
) -> Any:
    """SAELens' training class after training; the mean length of states is scaled to sqrt(d_model), then folded in.

    States stay where they are; each batch is moved to `device`.
    """
    try:
        from sae_lens import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
        from sae_lens.config import LoggingConfig, SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer
    except ImportError as error:
        todo = "Run pip install 'refusal-utils[sae]' with transformer-lens below 4."
        raise invalid(FUNCTION, "SAELens must be installed to train", str(error), todo) from error
    torch.manual_seed(seed)
    n_steps = max(1, n_samples // BATCH)
    shape = {"d_in": states.shape[1], "d_sae": n_latents, "normalize_activations": "expected_average_only_in"}
    shape |= {"dtype": "float32", "device": device, "apply_b_dec_to_input": True}
    sae: Any
    if architecture == "topk":
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(**shape, k=l0))
    else:
        sparsity = {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": float(l0), "l0_coefficient": 1.0}
        warm = {"l0_warm_up_steps": n_steps // 5, "pre_act_loss_coefficient": 3e-6}
        sae = JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(**shape, **sparsity, **warm))
    batches = _Batches(states, decision, seed)
    sae.mse_loss_fn = batches.loss
    how = {"total_training_samples": n_steps * BATCH, "train_batch_size_samples": BATCH, "lr": LEARNING_RATE}
    how |= {"lr_end": LEARNING_RATE / 10, "lr_warm_up_steps": min(100, n_steps // 10), "lr_decay_steps": n_steps // 4}
    quiet = {"dead_feature_window": 200, "n_batches_for_norm_estimate": 20, "device": device}
    cfg = SAETrainerConfig(**how, **quiet, logger=LoggingConfig(log_to_wandb=False))
    return SAETrainer(cfg, sae, batches).fit()


class _Batches:
    """Random batches without end, a share of which are decision states; every state comes once in each round.

    Decision states vary far less than others, so a plain loss would ignore them: errors are divided by the variance of
    the group, decision states or all, that a state is from.
    """

    def __init__(
        self, states: Float[Tensor, "token d_model"], decision: Float[Tensor, "prompt d_model"], seed: int
    ) -> None:
        n = int(SHARE * BATCH)
        self.parts = [(decision, n), (states, BATCH - n)]
        self.generator = torch.Generator().manual_seed(seed)
        self.left = [torch.empty(0, dtype=torch.int64) for _ in self.parts]
        spread = torch.stack([(part - part.mean(0)).square().sum(1).mean() for part, _ in self.parts])
        self.weights = (spread[1] / spread).repeat_interleave(torch.tensor([n for _, n in self.parts]))[:, None]

    def __iter__(self) -> "_Batches":
        return self

    def __next__(self) -> Float[Tensor, "batch d_model"]:
        return torch.cat([states[self._next(part, n)] for part, (states, n) in enumerate(self.parts)])

    def loss(
        self, found: Float[Tensor, "batch d_model"], states: Float[Tensor, "batch d_model"]
    ) -> Float[Tensor, "batch d_model"]:
        """The weighted squared errors of the batch that was drawn last."""
        return self.weights.to(found.device) * (found - states).square()

    def _next(self, part: int, n: int) -> Tensor:
        while len(self.left[part]) < n:
            order = torch.randperm(len(self.parts[part][0]), generator=self.generator)
            self.left[part] = torch.cat([self.left[part], order])
        rows, self.left[part] = self.left[part][:n], self.left[part][n:]
        return rows


def _save(trained: Any, place: Path, layer: int, model: str, made_from: str) -> None:
    """Write SAELens' folder, with weights in float16, its place, origin and checksum: all of it or nothing."""
    for old in place.parent.glob(".layer_*.part"):  # of killed runs
        shutil.rmtree(old)
    part = place.with_name(f".{place.name}.part")
    trained.save_inference_model(str(part))
    weights, config = part / WEIGHTS, part / CONFIG
    tensors = safetensors.torch.load(weights.read_bytes())
    safetensors.torch.save_file({name: each.half().contiguous() for name, each in tensors.items()}, weights)
    told = json.loads(config.read_text(encoding="utf-8")) | {"dtype": "float16", "device": "cpu"}
    where = {"hook_name": f"blocks.{layer}.hook_resid_post", "model_name": model, "made_from": made_from}
    told["metadata"] = {**told.get("metadata", {}), **where}
    told["metadata"]["checksum"] = _checksum(told, weights)
    config.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(place, ignore_errors=True)
    os.replace(part, place)


def _is_whole(place: Path, made_from: str) -> bool:
    """Whether a folder was made from just this, and is as it was written."""
    try:
        told = json.loads((place / CONFIG).read_text(encoding="utf-8"))
        checksum = told["metadata"].pop("checksum")
        return told["metadata"]["made_from"] == made_from and checksum == _checksum(told, place / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _checksum(told: dict[str, Any], weights: Path) -> str:
    return content_key(told, hashlib.sha256(weights.read_bytes()).hexdigest())
