"""What a trained direction is trained on: prompts with responses that the model itself gives, generated once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checks import require
from ..judging import judge_response
from ..model.chat_model import ChatModel
from ..steering import UNSTEERED, Condition, generate
from ..steering.given_responses import GivenResponse

N_ANSWER, N_RETAINED = 30, 29  # tokens of a target, and of the model's own response


@dataclass(frozen=True, eq=False)
class Targets:
    """Responses that training pulls the model towards, or holds it at.

    `answers`: what it answers to prompts that it refuses, once the difference in means is ablated. `refusals`: the
    first sentence of what it answers to others once the difference is added. `retained`: its own responses to these.
    `n_refused`: how many of the answers are refusals all the same.
    """

    answers: list[GivenResponse] = field(repr=False)
    refusals: list[GivenResponse] = field(repr=False)
    retained: list[GivenResponse] = field(repr=False)
    n_refused: int = 0


def make_targets(
    function: str,
    chat: ChatModel,
    refused: Sequence[str],
    answered: Sequence[str],
    *,
    suppress: Condition,
    induce: Condition,
    cache_dir: str | Path | None = None,
) -> Targets:
    """The targets for prompts that the model refuses and that it answers, with `suppress` and `induce` to steer it.

    They are greedy responses of at most 30 tokens (29 unsteered); refusals end before the first full stop. Empty ones
    are left out. Raises `ValueError` in the name of `function` if all answers are refusals, or if nothing is left of a
    kind. Source: Wollschläger et al. 2502.17420, section 4.
    """
    how: dict[str, Any] = {"cache_dir": cache_dir, "tokens": True}
    steered = generate(chat, refused, [suppress], max_new_tokens=N_ANSWER, **how)
    asked = zip(refused, steered["response"], strict=True)
    outcomes = [judge_response(prompt, response).outcome for prompt, response in asked]
    n_refused, todo = outcomes.count("refused"), "Choose another place or other prompts."
    must = "ablating the difference in means must make the model answer, which does not work on this model"
    got = f"refusals to all {len(refused)} prompts"
    require(n_refused < len(refused), function, must, got, todo)
    induced = generate(chat, answered, [induce], max_new_tokens=N_ANSWER, **how)
    own = generate(chat, answered, [UNSTEERED], max_new_tokens=N_RETAINED, **how)
    sentences = [_first_sentence(chat, ids) for ids in induced["tokens"]]
    sides = ((refused, list(steered["tokens"])), (answered, sentences), (answered, list(own["tokens"])))
    answers, refusals, retained = (_given(chat, prompts, responses) for prompts, responses in sides)
    for name, kind in {"answers": answers, "refusals": refusals, "unsteered responses": retained}.items():
        require(bool(kind), function, f"there must be {name} to train on", "empty ones only", todo)
    return Targets(answers, refusals, retained, n_refused)


def _given(chat: ChatModel, prompts: Sequence[str], responses: Sequence[Sequence[int]]) -> list[GivenResponse]:
    pairs = zip(chat.encode(prompts), responses, strict=True)
    return [GivenResponse([*ids, *response], len(response)) for ids, response in pairs if len(response)]


def _first_sentence(chat: ChatModel, ids: Sequence[int]) -> Sequence[int]:
    """The tokens before the first that holds a full stop."""
    ends = (index for index, token in enumerate(ids) if "." in str(chat.tokenizer.decode([token])))
    return ids[: next(ends, len(ids))]
