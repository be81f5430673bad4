"""The gate that a backend must pass before its responses count, and what can be done with it afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, product

import pandas as pd
import torch

from ...checks import require
from ...model.chat_model import ChatModel
from ..conditions import UNSTEERED, Condition
from ..generation import generate
from ..interventions import Ablation, Addition, Intervention, PartialAblation
from .backend import Backend, Reply, Request

MIN_PROMPTS = 20


@dataclass(frozen=True)
class Parity:
    """Of `n_prompts` prompts, how many failed each of the five tests of one condition; none may.

    `unsteered`: the unsteered response differs from ours. `zero`: the response at strength 0 differs from the unsteered
    one. `steered`: the steered response differs from ours. `mates`: the unsteered response changes when steered
    requests share its batch. `uncounted`: a steered request whose intervention did not act on every token.
    """

    n_prompts: int
    unsteered: int
    zero: int
    steered: int
    mates: int
    uncounted: int

    @property
    def failed(self) -> dict[str, int]:
        """The tests that were failed, with the number of prompts."""
        return {name: n for name, n in vars(self).items() if name != "n_prompts" and n}


def check_parity(
    chat: ChatModel, backend: Backend, prompts: Sequence[str], condition: Condition, max_new_tokens: int = 50
) -> Parity:
    """How a backend's greedy responses under `condition` compare with ours, token for token.

    Raises `ValueError` for fewer than 20 prompts, for a condition that the backend does not support, and for one that
    changes none of our responses, because nothing would be tested.
    """
    n, todo = len(set(prompts)), "Pass more."
    require(n >= MIN_PROMPTS, "check_parity", f"there must be {MIN_PROMPTS} different prompts", n, todo)
    backend.check_condition(condition)
    own = generate(chat, prompts, [UNSTEERED, condition], max_new_tokens=max_new_tokens, tokens=True)["tokens"]
    ours, ours_steered = list(own[: len(prompts)]), list(own[len(prompts) :])
    must, got = "the condition must change a response", f"{condition.name!r}, which changes none of {len(prompts)}"
    require(ours != ours_steered, "check_parity", must, got, "Raise the strength.")
    ids = chat.encode(prompts)
    alone = backend.answer([Request(row, UNSTEERED) for row in ids], max_new_tokens)
    at_zero = backend.answer([Request(row, _without_strength(condition)) for row in ids], max_new_tokens)
    mixed = [Request(row, each) for row, each in product(ids, (condition, UNSTEERED))]
    replies = backend.answer(mixed, max_new_tokens)
    steered, mates = replies[::2], replies[1::2]
    return Parity(
        len(prompts),
        unsteered=_n_different([each.tokens for each in alone], ours),
        zero=_n_different(at_zero, alone, ("tokens", "stopped")),
        steered=_n_different([each.tokens for each in steered], ours_steered),
        mates=_n_different(mates, alone, ("tokens", "stopped")),
        uncounted=sum(not reply.is_steered(each) for reply, each in zip(replies, mixed, strict=True)),
    )


def _n_different(found: Sequence, expected: Sequence, fields: tuple[str, ...] = ()) -> int:
    def key(each: object) -> object:
        return [getattr(each, name) for name in fields] if fields else each

    return sum(key(a) != key(b) for a, b in zip(found, expected, strict=True))


def _without_strength(condition: Condition) -> Condition:
    """The same interventions, which take the same way through the engine and change nothing."""
    return replace(condition, name="strength 0", interventions=tuple(map(_at_zero, condition.interventions)))


def _at_zero(edit: Intervention) -> Intervention:
    if isinstance(edit, Addition):
        return replace(edit, vector=torch.zeros_like(edit.vector), keep_norm=False)
    assert isinstance(edit, Ablation), "a backend supports nothing else"
    return PartialAblation(edit.directions, edit.layers, None, edit.tokens, edit.every, share=0.0)


@dataclass(frozen=True, eq=False)
class CheckedBackend:
    """A backend that has passed the gate on this model, for the kinds of intervention that were tested."""

    chat: ChatModel
    backend: Backend
    parities: dict[str, Parity]
    fingerprint: str

    def generate(
        self, prompts: Sequence[str], conditions: Sequence[Condition] = (UNSTEERED,), *, max_new_tokens: int = 50
    ) -> pd.DataFrame:
        """The responses of the backend, with the columns of `generate`: one row each, condition by condition.

        Raises `ValueError` if the model has changed since the gate, for a kind of intervention that was not tested, and
        if a single request was answered without its intervention.
        """
        name, chat, todo = "CheckedBackend", self.chat, "Call checked_backend again."
        require(chat.fingerprint == self.fingerprint, name, "the model must be the one tested", "another", todo)
        untested = sorted(_kinds(conditions) - set(self.parities))
        got = ", ".join(untested)
        require(not untested, name, f"{self.backend.name} must have been tested with every kind", got, todo)
        for each in conditions:
            self.backend.check_condition(each)
        requests = [Request(ids, each) for each, ids in product(conditions, chat.encode(prompts))]
        replies = self.backend.answer(requests, max_new_tokens)
        n_lost = sum(not reply.is_steered(each) for reply, each in zip(replies, requests, strict=True))
        must, todo = "every request must be answered under its condition", "Use fewer at once, or generate()."
        require(not n_lost, name, must, f"{n_lost} of {len(requests)} that were not", todo)
        return _frame(chat, requests, replies, len(prompts))


def checked_backend(
    chat: ChatModel,
    backend: Backend,
    prompts: Sequence[str],
    conditions: Sequence[Condition],
    *,
    max_new_tokens: int = 50,
) -> CheckedBackend:
    """The backend, ready to use, if it passes the gate (`check_parity`) under each of `conditions`.

    Pass one condition of every kind that will be used, such as an addition and an ablation. Raises `ValueError` with
    the numbers of the first condition that fails.
    """
    parities: dict[str, Parity] = {}
    for each in conditions:
        found = check_parity(chat, backend, prompts, each, max_new_tokens)
        must, got = f"{backend.name} must answer as generate() does", f"{found.failed} of {found.n_prompts} prompts"
        todo = "Compare dtype, template and versions; until then use generate()."
        require(not found.failed, "checked_backend", must, f"{got} differing under {each.name!r}", todo)
        parities |= dict.fromkeys(_kinds([each]), found)
    return CheckedBackend(chat, backend, parities, chat.fingerprint)


def _kinds(conditions: Sequence[Condition]) -> set[str]:
    return {type(edit).__name__ for edit in chain.from_iterable(each.interventions for each in conditions)}


def _frame(chat: ChatModel, requests: Sequence[Request], replies: Sequence[Reply], n_prompts: int) -> pd.DataFrame:
    fields = ("name", "direction", "coefficient", "gaps")
    told = [
        (at % n_prompts, *(getattr(each.condition, name) for name in fields), *_told(chat, reply))
        for at, (each, reply) in enumerate(zip(requests, replies, strict=True))
    ]
    columns = ["prompt", "condition", "direction", "coefficient", "gaps", "response", "n_tokens", "stopped"]
    return pd.DataFrame(told, columns=columns)


def _told(chat: ChatModel, reply: Reply) -> tuple[str, int, bool]:
    text = str(chat.tokenizer.decode(list(reply.tokens), skip_special_tokens=True)).strip()
    return text, len(reply.tokens) + reply.stopped, reply.stopped
