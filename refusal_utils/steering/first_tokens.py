"""What conditions do to the first token of the response: how far they move it, and whether it opens a refusal.

Both need one forward pass per prompt and condition, and no generation.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..checks import require
from ..model.batching import in_order, plan_batches, run_batches, token_budget
from ..model.chat_model import ChatModel
from .conditions import UNSTEERED, Condition
from .decoding import forward
from .generation import BATCH_TOKENS, first_token_logits
from .row_edits import RowEdits
from .shared_rows import SharedRows


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
    """`measure(prompt, logits [d_vocab])` of every prompt under every condition; layers below all edits run once."""
    ids, own = chat.encode(prompts), {each.digest: each for each in conditions}
    rows = [(each, prompt) for each in own.values() for prompt in range(len(ids))]
    layer = min(each.first_layer(chat.n_layers) for each in (*own.values(), UNSTEERED))

    def step(batch: list[int]) -> tuple[Tensor]:
        given = [rows[index] for index in batch]
        edits = RowEdits(chat, [condition.interventions for condition, _ in given])
        shared = SharedRows(chat, [ids[prompt] for _, prompt in given], min(layer, chat.n_layers - 1))
        with edits.open(shared.spread), shared.open():
            logits = forward(chat, shared.ids, shared.mask).logits[:, -1].float().cpu()
        return (torch.stack([measure(prompt, after) for (_, prompt), after in zip(given, logits, strict=True)]),)

    budget = token_budget(function, None, chat.device, BATCH_TOKENS)
    batches = plan_batches([ids[prompt] for _, prompt in rows], budget)
    (values,) = in_order(run_batches(function, batches, step))
    found = dict(zip(own, values.view(len(own), len(ids)), strict=True))
    return torch.stack([found[condition.digest] for condition in conditions])
