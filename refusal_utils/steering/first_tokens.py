"""What conditions do to the first token of the response: how far they move it, and whether it opens a refusal.

Both need one forward pass per prompt and condition, and no generation.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..checks import require
from ..model.chat_model import ChatModel
from .conditions import Condition
from .shared_passes import first_token_logits, read_first_tokens


def kl_spent(chat: ChatModel, prompts: Sequence[str], conditions: Sequence[Condition]) -> Float[Tensor, " coefficient"]:
    """KL(unsteered || steered) of the first token in nats, averaged over `prompts`, for every condition."""
    before = first_token_logits(chat, prompts).double().log_softmax(-1)

    def divergence(prompt: int, logits: Tensor) -> Tensor:
        # One prompt at a time, because a large vocabulary in float64 does not fit into memory for a whole batch.
        return (before[prompt].exp() * (before[prompt] - logits.double().log_softmax(-1))).sum()

    return _measure("kl_spent", chat, prompts, conditions, divergence).mean(1)


def refusal_scores(
    chat: ChatModel, prompts: Sequence[str], conditions: Sequence[Condition], tokens: Int[Tensor, " token"]
) -> Float[Tensor, "coefficient prompt"]:
    """The `refusal_logit` of the first token of the response to every prompt under every condition, in float64.

    Raises `ValueError` without `tokens`.
    """
    todo = "Take those of RefusalOpening, or give ids."
    require(len(tokens) > 0, "refusal_scores", "there must be tokens that open refusals", "none", todo)
    return _measure(
        "refusal_scores", chat, prompts, conditions, lambda _, logits: refusal_logit(logits.double(), tokens)
    )


def refusal_logit(logits: Float[Tensor, "*prompt d_vocab"], tokens: Int[Tensor, " token"]) -> Float[Tensor, "*prompt"]:
    """The log odds that the response begins with one of the `tokens` that open refusals.

    Source: refusal score of Arditi et al. 2406.11717, appendix B; they add 1e-8 to both probabilities.
    """
    others = torch.ones(logits.shape[-1], dtype=torch.bool)
    others[tokens] = False
    return logits[..., tokens].logsumexp(-1) - logits[..., others].logsumexp(-1)


def _measure(
    function: str,
    chat: ChatModel,
    prompts: Sequence[str],
    conditions: Sequence[Condition],
    measure: Callable[[int, Tensor], Tensor],
) -> Float[Tensor, "coefficient prompt"]:
    """`measure(prompt, logits [d_vocab])` of every prompt under every condition."""

    def read(prompt_idx: Tensor, logits: Tensor, states: Tensor) -> tuple[Tensor]:
        rows = zip(prompt_idx.tolist(), logits.float().cpu(), strict=True)
        return (torch.stack([measure(prompt, row) for prompt, row in rows]),)

    return read_first_tokens(function, chat, prompts, conditions, read)[0]
