"""States of prompts while an intervention is at work, for asking what a steered model still knows."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from ..model.batching import in_order, plan_batches, run_batches, token_budget
from ..model.chat_model import ChatModel, check_positions
from ..model.common_tokens import n_worth_sharing
from .beginning import Beginning
from .conditions import Condition


def steered_states(
    chat: ChatModel,
    prompts: Sequence[str],
    condition: Condition,
    *,
    layer: int | None = None,
    pos: int = -1,
    batch_tokens: int | None = None,
) -> Float[Tensor, "prompt d_model"]:
    """`resid_post` of `layer` (default: the last) at template position `pos` under `condition`, as float32 on the CPU.

    Nothing is cached. Raises `ValueError` for a position outside the template, and for an intervention that does not
    fit.
    """
    check_positions("steered_states", chat, (pos,))
    name = chat.hook_name("resid_post", (chat.n_layers - 1 if layer is None else layer) % chat.n_layers)
    ids = chat.encode(prompts)
    begin = Beginning(chat, ids, n_worth_sharing(chat, ids, len(chat.suffix)))
    first = min(condition.first_layer(chat.n_layers), chat.n_layers - 1)

    def step(rows: list[int]) -> tuple[Tensor]:
        own = [ids[row] for row in rows]
        with begin.rows(own, [condition.interventions] * len(rows), first) as (shared, _):
            found = shared.read([name], lambda _, value: value[:, pos])
        return (found[name].float().cpu(),)

    batches = plan_batches(ids, token_budget("steered_states", batch_tokens, chat.device))
    return in_order(run_batches("steered_states", batches, step))[0]
