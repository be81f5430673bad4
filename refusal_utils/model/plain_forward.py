"""One forward pass of the Hugging Face model itself, and whether it can go on from a cache of past tokens."""

import inspect
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from .chat_format import TokenBatch

MOST_DIFFERENT = 0.01  # logits of a cached step, relative to the largest; a wrong cache is off by far more


def plain_forward(
    model: Any,
    input_ids: Int[Tensor, "batch pos"],
    attention_mask: Int[Tensor, "batch token"],
    *,
    n_logits: int = 1,
    **options: Any,
) -> Any:
    """The output of one forward pass with explicit positions, and only the last `n_logits` logits if possible."""
    known = inspect.signature(model.forward).parameters
    if "position_ids" in known:
        positions = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
        options["position_ids"] = positions[:, -input_ids.shape[1] :]
    if "logits_to_keep" in known:
        options["logits_to_keep"] = n_logits
    return model(input_ids=input_ids, attention_mask=attention_mask, **options)


@torch.inference_mode()
def has_cache(model: Any, probe: TokenBatch) -> bool:
    """Whether the last token of every prompt has the same logits after a cached pass over the others.

    Not so for models that keep their past in another form (Mamba) or that the bridge runs without one (MPT).
    """
    ids, mask = probe
    before = plain_forward(model, ids[:, :-1], mask[:, :-1], use_cache=True)
    cache = getattr(before, "past_key_values", None)
    if not hasattr(cache, "reorder_cache"):
        return False
    whole = plain_forward(model, ids, mask).logits[:, -1]
    try:
        step = plain_forward(model, ids[:, -1:], mask, past_key_values=cache, use_cache=True).logits[:, -1]
    except (RuntimeError, TypeError, AttributeError, ValueError, IndexError):
        return False
    return float((step - whole).abs().max()) <= MOST_DIFFERENT * max(1.0, float(whole.abs().max()))
