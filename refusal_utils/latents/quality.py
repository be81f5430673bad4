"""How well an autoencoder stands in for the stream it reads: variance, sparsity, and the model's next tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..checks import require
from ..model.batching import in_order, plan_batches, run_batches, token_budget
from ..model.chat_model import ChatModel
from ..model.hooks import open_hooks
from ..plotting.look import HEIGHT, WIDTH
from ..steering.decoding import forward
from ..steering.given_responses import GivenResponse
from .sae import SparseAutoencoder
from .token_states import OUTLIER, TokenStates, decision_places, token_states

SHARES = ("explained at the decision state", "explained over all tokens", "cross-entropy recovered")


@dataclass(frozen=True, eq=False)
class Quality:
    """The measures of `sae_quality` by layer (the block whose output is read)."""

    rows: pd.DataFrame = field(repr=False)

    def table(self) -> pd.DataFrame:
        """A row per layer."""
        return self.rows

    def figure(self) -> go.Figure:
        """Explained variance and recovered cross-entropy by layer."""
        long = self.rows[list(SHARES)].rename_axis("layer").reset_index().melt("layer", var_name="share")
        long["layer"] = "resid_post, layer " + long["layer"].astype(str)
        title = "How much of the stream the autoencoders keep (held-out chats)"
        how: dict[str, Any] = {"title": title, "template": "refusal", "width": WIDTH, "height": HEIGHT}
        return px.bar(long, x="layer", y="value", color="share", barmode="group", **how)


def explained_variance(sae: SparseAutoencoder, states: Float[Tensor, "row d_model"], n_batch: int = 4096) -> float:
    """The share of the states' variance around their mean that is left after encoding and decoding.

    Raises `ValueError` as `encode` does.
    """
    lost = sum(float(sae.error(batch).double().square().sum()) for batch in states.split(n_batch))
    return 1 - lost / float((states.double() - states.double().mean(0)).square().sum())


def sae_quality(
    chat: ChatModel,
    saes: Mapping[int, SparseAutoencoder],
    given: Sequence[GivenResponse],
    *,
    first: int = 0,
    cache_dir: str | Path | None = None,
) -> Quality:
    """The quality of autoencoders, by layer, on chats that they were not trained on.

    Columns: *explained at the decision state* (the model's position, `resid_post` of the layer) and *over all tokens*;
    *L0*, the mean number of latents that fire; *dead*, latents that fire at no token; *never at the decision state*;
    *cross-entropy* of response tokens with the stream *as it is*, *spliced* (replaced by its reconstruction) and
    *without* (replaced by 0), in nats, and *recovered*, (without - spliced) / (without - as it is); *outside*, the
    share of decision states beyond what an SAE was trained on: among the `first` tokens, or above ten times the median
    norm. States above that norm are left as they are in splicing and out of variance, as in training.

    Raises `ValueError` for an SAE of another stream than its layer's output, and as `token_states` does.
    """
    function = "sae_quality"
    for layer, sae in saes.items():
        sae.require_place(function, layer, "resid_post")
    states = token_states(chat, given, list(saes), cache_dir=cache_dir)
    before = _cross_entropy(chat, given, None, None)
    rows = {}
    for layer, sae in saes.items():
        limit = OUTLIER * float(states.values[layer].norm(dim=-1).median())
        rows[layer] = _measured(sae, states, given, layer, chat.decision_pos, first)
        name = chat.hook_name("resid_post", layer)
        spliced = _cross_entropy(chat, given, name, partial(_reconstructed, sae, limit))
        without = _cross_entropy(chat, given, name, torch.zeros_like)
        entropies = {"as it is": before, "spliced": spliced, "without": without}
        rows[layer] |= {f"cross-entropy {how}": each for how, each in entropies.items()}
        rows[layer]["cross-entropy recovered"] = (without - spliced) / (without - before)
    return Quality(pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer"))


def outside_training(states: TokenStates, layer: int, places: Sequence[int], first: int = 8) -> Bool[Tensor, " row"]:
    """Whether each place is one that trainings leave out: among the `first` tokens, or above ten times the median norm.

    The published trainings leave out the first eight tokens. `places` are indices among all tokens.
    """
    starts = torch.searchsorted(states.chat_idx, states.chat_idx.unique())
    at = torch.tensor(places)
    index = at - starts[states.chat_idx[at]]
    return (index < first) | ~states.usual(layer)[at]


def _measured(
    sae: SparseAutoencoder, states: TokenStates, given: Sequence[GivenResponse], layer: int, pos: int, first: int
) -> dict[str, Any]:
    values, places = states.values[layer], decision_places(given, pos)
    usual, decision = values[states.usual(layer)], values[places]
    fires = [sae.fires(batch) for batch in usual.split(4096)]
    ever = torch.stack([each.any(0) for each in fires]).any(0)
    return {
        "latents": sae.n_latents,
        SHARES[0]: explained_variance(sae, decision),
        SHARES[1]: explained_variance(sae, usual),
        "L0": sum(int(each.sum()) for each in fires) / len(usual),
        "dead": int((~ever).sum()),
        "never at the decision state": int((~sae.fires(decision).any(0)).sum()),
        "outside": float(outside_training(states, layer, places, first).float().mean()),
    }


def _reconstructed(sae: SparseAutoencoder, limit: float, value: Tensor) -> Tensor:
    rebuilt = sae.decode(sae.encode(value.float())).to(value)
    return torch.where(value.float().norm(dim=-1, keepdim=True) <= limit, rebuilt, value)


def _cross_entropy(chat: ChatModel, given: Sequence[GivenResponse], name: str | None, change: Any) -> float:
    """The mean cross-entropy of the response tokens, in nats, while `change` replaces the stream at a hook."""
    kept = [each for each in given if each.n_response > 0]
    require(bool(kept), "sae_quality", "some responses must have tokens", "none", "Pass other chats.")

    def step(rows: list[int]) -> tuple[Tensor, Tensor]:
        batch = chat.pad([kept[row].ids for row in rows])
        hooks = [] if name is None else [(name, lambda value, hook: change(value))]
        n = torch.tensor([kept[row].n_response for row in rows], device=chat.device)
        most = int(n.max())
        with open_hooks(chat, hooks):
            logits = forward(chat, *batch, n_logits=most + 1).logits[:, -most - 1 : -1]
        losses = torch.nn.functional.cross_entropy(logits.float().mT, batch.input_ids[:, -most:], reduction="none")
        own = torch.arange(most, device=chat.device) >= most - n[:, None]
        return (losses * own).sum(1).cpu(), n.cpu()

    batches = plan_batches([each.ids for each in kept], token_budget("sae_quality", None, chat.device))
    losses, n = in_order(run_batches("sae_quality", batches, step))
    return float(losses.sum() / n.sum())
