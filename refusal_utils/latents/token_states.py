"""States of every token of prompts and of the model's own responses, which autoencoders are trained and measured on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..checks import require
from ..model.batching import in_order, plan_batches, run_batches, token_budget
from ..model.chat_model import ChatModel
from ..model.forward import read_hooks
from ..steering import generate
from ..steering.given_responses import GivenResponse

OUTLIER = 10.0  # times the median norm: states above it are not trained on, as in published trainings


@dataclass(frozen=True, eq=False)
class TokenStates:
    """The states of all tokens of some chats at the outputs of some blocks, chat after chat.

    `chat_idx`: which chat each token belongs to; `ids`: the token; `in_response`: whether the model wrote it.
    """

    values: dict[int, Float[Tensor, "token d_model"]] = field(repr=False)
    chat_idx: Int[Tensor, " token"] = field(repr=False)
    ids: Int[Tensor, " token"] = field(repr=False)
    in_response: Bool[Tensor, " token"] = field(repr=False)

    def usual(self, layer: int) -> Bool[Tensor, " token"]:
        """The tokens whose state has at most `OUTLIER` times the median norm at a layer."""
        norms = self.values[layer].float().norm(dim=-1)
        return norms <= OUTLIER * norms.median()


def own_chats(
    chat: ChatModel, prompts: Sequence[str], *, max_new_tokens: int = 50, cache_dir: str | Path | None = None
) -> list[GivenResponse]:
    """The token ids of each prompt with the model's own greedy response, its stop token left out.

    Raises `ValueError` as `generate` does.
    """
    rows = generate(chat, prompts, max_new_tokens=max_new_tokens, cache_dir=cache_dir, progress=True, tokens=True)
    pairs = zip(chat.encode(prompts), rows["tokens"], strict=True)
    return [GivenResponse([*prompt, *response], len(response)) for prompt, response in pairs]


def token_states(
    chat: ChatModel,
    given: Sequence[GivenResponse],
    layers: Sequence[int],
    *,
    batch_tokens: int | None = None,
    progress: bool = False,
) -> TokenStates:
    """The output of each block of `layers` (`resid_post`) at every token of `given`, in float32 on the CPU.

    Raises `ValueError` for no chats or layers, a layer that the model does not have, and as `run_batches` does.
    """
    function = "token_states"
    some, got = len(given) > 0 and len(layers) > 0, f"{len(given)} chats and {len(layers)} layers"
    require(some, function, "there must be chats and layers", got, "Pass some.")
    names, ids = [chat.hook_name("resid_post", layer) for layer in layers], [each.ids for each in given]
    n_most = max(map(len, ids))

    def step(rows: list[int]) -> tuple[Tensor, ...]:
        batch = chat.pad([ids[row] for row in rows])
        kept = read_hooks(chat, batch, names, lambda _, value: value.float().cpu())
        found = (kept[name] for name in names)
        # Rows of one length for all batches; padding on the left is cut off below.
        return tuple(torch.nn.functional.pad(each, (0, 0, n_most - each.shape[1], 0)) for each in found)

    batches = plan_batches(ids, token_budget(function, batch_tokens, chat.device))
    label = function if progress else ""
    padded = in_order(run_batches(function, batches, step, progress=label, what=f"chats at {len(layers)} layers"))
    lengths = torch.tensor([len(row) for row in ids])
    is_real = torch.arange(n_most) >= n_most - lengths[:, None]
    answered = torch.arange(n_most) >= n_most - torch.tensor([each.n_response for each in given])[:, None]
    values = {layer: each[is_real] for layer, each in zip(layers, padded, strict=True)}
    tokens = torch.tensor([token for row in ids for token in row])
    return TokenStates(values, torch.arange(len(ids)).repeat_interleave(lengths), tokens, answered[is_real])


def decision_places(given: Sequence[GivenResponse], pos: int) -> list[int]:
    """The place of each chat's decision state among all tokens of `given`; `pos` counts from the end of the prompt."""
    places, start = [], 0
    for each in given:
        places.append(start + len(each.ids) - each.n_response + pos)
        start += len(each.ids)
    return places
