"""What a backend is: requests in, replies out, and a count of the tokens at which each intervention acted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..conditions import Condition


@dataclass(frozen=True, eq=False)
class Request:
    """The tokens of one prompt, as `ChatModel.encode` gives them, and the condition that it is answered under."""

    ids: list[int]
    condition: Condition


@dataclass(frozen=True)
class Reply:
    """The tokens of a greedy response up to and without its stop token, and whether one of these ended it.

    `n_seen`: for how many tokens of prompt and response each intervention saw the residual stream, the fewest over its
    layers; 0 for an unsteered request. The last token of a response is never read, so at most one is missing.
    """

    tokens: tuple[int, ...]
    stopped: bool
    n_seen: int = 0

    def is_steered(self, request: Request) -> bool:
        """Whether the interventions of the request acted on every token that was read; true of one without any.

        An engine may read one token more than it returns; one that starts a request again reads its tokens twice.
        """
        n_read = len(request.ids) + len(self.tokens) + self.stopped - 1
        return not request.condition.interventions or n_read <= self.n_seen <= n_read + 1


class Backend(Protocol):
    """An engine that answers many prompts under different conditions at once."""

    name: str

    def check_condition(self, condition: Condition) -> None:
        """Raise `ValueError` for a condition that it cannot apply exactly."""

    def answer(self, requests: Sequence[Request], max_new_tokens: int) -> list[Reply]:
        """The greedy replies to all requests, which may share batches."""
