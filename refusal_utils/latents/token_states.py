"""States of every token of prompts and of the model's own responses, which autoencoders are trained and measured on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..checks import require
from ..model.activation_store import ActivationStore, FoundPrompts
from ..model.batching import plan_batches, run_batches, token_budget
from ..model.chat_model import ChatModel
from ..model.forward import read_hooks
from ..model.open_hooks import NOT_STORED, require_no_hooks
from ..model.store import one_at_a_time
from ..steering import generate
from ..steering.given_responses import GivenResponse

FUNCTION = "token_states"
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
    cache_dir: str | Path | None = None,
    batch_tokens: int | None = None,
    progress: bool = False,
) -> TokenStates:
    """The output of each block of `layers` (`resid_post`) at every token of `given`, in float32 on the CPU.

    `cache_dir` keeps the states, in the model's dtype, by weights, token ids and layers: each batch is written as soon
    as it is computed, and what is stored is read file by file. Raises `ValueError` for no chats or layers, a layer that
    the model does not have, a cache that cannot be read or written, one while hooks are open, and as `run_batches`
    does.
    """
    some, got = len(given) > 0 and len(layers) > 0, f"{len(given)} chats and {len(layers)} layers"
    require(some, FUNCTION, "there must be chats and layers", got, "Pass some.")
    if cache_dir is not None:
        require_no_hooks(FUNCTION, chat, NOT_STORED, "Close it, or leave cache_dir out.")
    names, ids = [chat.hook_name("resid_post", layer) for layer in layers], [each.ids for each in given]
    model = None if cache_dir is None else chat.fingerprint  # it reads all weights
    with one_at_a_time(cache_dir, FUNCTION, model, names, ids):
        store = None if cache_dir is None else ActivationStore(Path(cache_dir), chat, names, (), FUNCTION)
        found = _Found(ids, layers, store)
        for rows, values in _read_missing(chat, ids, names, found, batch_tokens, progress):
            found.add(rows, values)
    tokens = torch.tensor([token for row in ids for token in row])
    return TokenStates(found.values, found.chat_idx, tokens, _answers(given))


class _Found(FoundPrompts):
    """The states of chats, given by their token ids, as one tensor a layer with chat after chat."""

    def __init__(self, ids: list[list[int]], layers: Sequence[int], store: ActivationStore | None) -> None:
        lengths = torch.tensor([len(row) for row in ids])
        self.chat_idx = torch.arange(len(ids)).repeat_interleave(lengths)
        self.ends = lengths.cumsum(0).tolist()
        self.values = {layer: torch.empty(0) for layer in layers}
        super().__init__(ids, store)

    def _keep(self, rows: Sequence[int], values: Float[Tensor, "batch layer pos d_model"]) -> None:
        """Keep the states of chats, which are padded on the left."""
        if not self.known:
            shape = self.ends[-1], values.shape[-1]
            self.values = {layer: torch.empty(shape) for layer in self.values}
        for row, own in zip(rows, values, strict=True):
            n, end = len(self.prompts[row]), self.ends[row]
            for kept, each in zip(self.values.values(), own, strict=True):
                kept[end - n : end] = each[-n:].float()


def _read_missing(
    chat: ChatModel,
    ids: list[list[int]],
    names: Sequence[str],
    found: _Found,
    batch_tokens: int | None,
    progress: bool,
) -> Iterator[tuple[list[int], Float[Tensor, "batch layer pos d_model"]]]:
    """Pairs (rows, states) of the chats that are not in `found`, batch by batch."""

    def step(rows: list[int]) -> Float[Tensor, "batch layer pos d_model"]:
        batch = chat.pad([ids[row] for row in rows])
        kept = read_hooks(chat, batch, names, lambda _, value: value.detach().cpu())
        return torch.stack([kept[name] for name in names], dim=1)

    # All chats are planned, stored ones too: a resumed run must form the same batches as an unbroken one.
    batches = plan_batches(ids, token_budget(FUNCTION, batch_tokens, chat.device))
    label, what = FUNCTION if progress else "", f"chats at {len(names)} layers"
    return run_batches(FUNCTION, batches, step, left=found.missing, progress=label, what=what)


def _answers(given: Sequence[GivenResponse]) -> Bool[Tensor, " token"]:
    """Whether the model wrote each token."""
    parts = [torch.arange(len(each.ids)) >= len(each.ids) - each.n_response for each in given]
    return torch.cat(parts)


def decision_places(given: Sequence[GivenResponse], pos: int) -> list[int]:
    """The place of each chat's decision state among all tokens of `given`; `pos` counts from the end of the prompt."""
    places, start = [], 0
    for each in given:
        places.append(start + len(each.ids) - each.n_response + pos)
        start += len(each.ids)
    return places
