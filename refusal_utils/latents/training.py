"""Training sparse autoencoders on a model's own states, with SAELens as the trainer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import invalid, require, require_known
from ..model.chat_model import ChatModel
from ..steering.given_responses import GivenResponse
from .files import load_sae
from .sae import SparseAutoencoder
from .token_states import decision_places, token_states

FUNCTION = "train_sae"
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
) -> dict[int, SparseAutoencoder]:
    """Autoencoders of the outputs of blocks, by layer, trained on all tokens of `given` and saved under `folder`.

    `architecture`: one of `ARCHITECTURES`, with `l0` latents that fire at a state (jumprelu: about as many). States
    above ten times the median norm are left out. `n_samples`: states seen, each as often as needed. A folder
    `layer_{n}` is one of SAELens' (kind `sae_lens`), with weights in float16; what is returned is read from it.

    Raises `ValueError` for another architecture, numbers below 1, a missing SAELens, and as `token_states` does.
    """
    require_known(FUNCTION, "architecture", architecture, ARCHITECTURES)
    for name, value in {"n_latents": n_latents, "l0": l0, "n_samples": n_samples}.items():
        require(value >= 1, FUNCTION, f"{name} must be at least 1", value, "Pass a larger one.")
    require(l0 <= n_latents, FUNCTION, f"l0 must be at most n_latents, {n_latents}", l0, "Pass a smaller one.")
    states = token_states(chat, given, layers, progress=True)
    places = torch.tensor(decision_places(given, chat.decision_pos))
    found = {}
    for layer in layers:
        own, decision = states.values[layer][states.usual(layer)], states.values[layer][places]
        trained = _trained(own, decision, architecture, n_latents, l0, n_samples, seed)
        place = Path(folder) / f"layer_{layer}"
        trained.save_inference_model(str(place))
        _as_half(place, {"hook_name": f"blocks.{layer}.hook_resid_post", "model_name": chat.short_name})
        found[layer] = load_sae(place, "sae_lens")
    return found


def _trained(
    states: Float[Tensor, "token d_model"],
    decision: Float[Tensor, "prompt d_model"],
    architecture: str,
    n_latents: int,
    l0: int,
    n_samples: int,
    seed: int,
) -> Any:
    """SAELens' training class after training; the mean length of states is scaled to sqrt(d_model), then folded in."""
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
    shape |= {"dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True}
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
    quiet = {"dead_feature_window": 200, "n_batches_for_norm_estimate": 20, "device": "cpu"}
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
        return self.weights * (found - states).square()

    def _next(self, part: int, n: int) -> Tensor:
        while len(self.left[part]) < n:
            order = torch.randperm(len(self.parts[part][0]), generator=self.generator)
            self.left[part] = torch.cat([self.left[part], order])
        rows, self.left[part] = self.left[part][:n], self.left[part][n:]
        return rows


def _as_half(place: Path, metadata: dict[str, str]) -> None:
    """Rewrite a saved folder: weights in float16, and where in which model it reads."""
    weights, config = place / "sae_weights.safetensors", place / "cfg.json"
    tensors = safetensors.torch.load(weights.read_bytes())
    safetensors.torch.save_file({name: each.half().contiguous() for name, each in tensors.items()}, weights)
    told = json.loads(config.read_text(encoding="utf-8"))
    told |= {"dtype": "float16", "metadata": {**told.get("metadata", {}), **metadata}}
    config.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
