"""What one layer's heads attend to."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..model.chat_model import ChatModel
from ..model.forward import read_hooks


def attention_pattern(
    chat: ChatModel, prompt: str, layer: int
) -> tuple[list[str], Float[Tensor, "head_index pos token"]]:
    """(tokens of `prompt` in its chat, attention of every head of `layer` from each position to each token).

    The attention from a position sums to 1. As float32 on the CPU.
    """
    (ids,) = chat.encode([prompt])
    name = chat.hook_name("pattern", layer)
    with torch.inference_mode():
        kept = read_hooks(chat, chat.pad([ids]), [name], lambda _, value: value[0].float().cpu())
    return [str(chat.tokenizer.decode([token])) for token in ids], kept[name]
