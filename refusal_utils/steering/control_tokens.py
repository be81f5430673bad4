"""Which token a response is made to begin with: one that announces a refusal, or one that announces an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..checks import require
from ..model.chat_model import ChatModel
from ..prompts.categories import BENIGN, CATEGORY_IDS
from .first_tokens import refusal_logit
from .openings import first_ids, opening_ids


class FirstTokens(NamedTuple):
    """What the logits of a prompt's first response token say about refusing it.

    `score` is the log odds of refusing; `refuse` and `respond` are the ids of the likeliest token of each kind, and
    `own_refuses` tells whether the first is likelier than the second. `probability` is that of `refuse` over the whole
    vocabulary; `named_idx` is the position of `refuse` among the refusing tokens.
    """

    score: Float[Tensor, " prompt"]
    refuse: Int[Tensor, " prompt"]
    respond: Int[Tensor, " prompt"]
    own_refuses: Bool[Tensor, " prompt"]
    probability: Float[Tensor, " prompt"]
    named_idx: Int[Tensor, " prompt"]


@dataclass(frozen=True)
class ControlTokens:
    """The ids of the tokens with which a model begins its refusals, by name, and its answers (`respond`)."""

    refuse: Mapping[str, int]
    respond: int
    kind: str = "control tokens"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the refusing tokens."""
        return tuple(self.refuse)

    def read(self, logits: Float[Tensor, "prompt d_vocab"], temperature: float = 1.0) -> FirstTokens:
        """The likeliest refusing token of each prompt against the answering one; the score is between these."""
        ids, logits = torch.tensor([*self.refuse.values()]), logits.double() / temperature
        own, respond = logits[:, ids], torch.full((len(logits),), self.respond)
        return _first_tokens(own.logsumexp(-1) - logits[:, self.respond], logits, ids, respond)


@dataclass(frozen=True, eq=False)
class OpeningProxy:
    """A proxy for control tokens on a model without any: the tokens that open its refusals, against all others.

    A response is forced to begin with the likeliest of `tokens`, or with the likeliest other that is none of `stops`.
    """

    tokens: Int[Tensor, " token"]
    stops: Sequence[int] = ()
    kind: str = "proxy"
    names: tuple[str, ...] = ()

    def read(self, logits: Float[Tensor, "prompt d_vocab"], temperature: float = 1.0) -> FirstTokens:
        """The likeliest opening token of each prompt against the likeliest other one; the score is `refusal_logit`."""
        logits = logits.double() / temperature
        others = logits.index_fill(
            1, torch.cat([self.tokens, torch.tensor([*self.stops], dtype=torch.long)]), -torch.inf
        )
        return _first_tokens(refusal_logit(logits, self.tokens), logits, self.tokens, others.argmax(-1))


def _first_tokens(score: Tensor, logits: Tensor, refusing: Tensor, respond: Tensor) -> FirstTokens:
    named = logits[:, refusing].argmax(-1)
    refuse, rows = refusing[named], torch.arange(len(logits))
    probability = logits.softmax(-1)[rows, refuse]
    return FirstTokens(score, refuse, respond, logits[rows, refuse] > logits[rows, respond], probability, named)


def opening_proxy(chat: ChatModel, responses: pd.DataFrame) -> OpeningProxy:
    """The proxy from a model's judged responses (columns response and outcome).

    Raises `ValueError` if no token opens more of the refusals than of the answers.
    """
    first = first_ids(chat, responses["response"])
    tokens = opening_ids(*(first[responses["outcome"] == side] for side in ("refused", "answered")))
    must, got = "a proxy needs a token that opens more refusals than answers", f"none in {len(responses)} responses"
    require(len(tokens) > 0, "opening_proxy", must, got, "Pass more responses, or use control tokens.")
    return OpeningProxy(torch.tensor(tokens), sorted(chat.stop_tokens))


def control_token(name: str) -> str:
    """The control token of a category in the bundled variant; that of benign prompts announces an answer.

    >>> control_token("advice"), control_token("benign")
    ('<|advice|>', '<|respond|>')
    """
    return "<|respond|>" if name == BENIGN else f"<|{name}|>"


def find_control_tokens(
    chat: ChatModel, refuse: Mapping[str, str] | None = None, respond: str = control_token(BENIGN)
) -> ControlTokens | None:
    """The control tokens of a model; None if they are not given and it has not those of the bundled variant.

    `refuse` maps names, such as categories, to the texts of refusing tokens; `respond` is the text of the answering
    one. Blanks count: the published models have `" [refuse]"`. Raises `ValueError` for a text that is not one token.
    """
    if refuse is None:
        refuse = {name: control_token(name) for name in CATEGORY_IDS}
        if not {*refuse.values(), respond} <= chat.tokenizer.get_vocab().keys():
            return None
    return ControlTokens({name: _one_token(chat, text) for name, text in refuse.items()}, _one_token(chat, respond))


def _one_token(chat: ChatModel, text: str) -> int:
    ids = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
    must, got = "a control token must be one token", f"{text!r}, which is {len(ids)}"
    require(len(ids) == 1, "find_control_tokens", must, got, "Check its spelling and the blank before it.")
    return ids[0]
