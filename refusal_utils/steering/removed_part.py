"""What an ablation takes away: products of every row of a batch with directions of its own."""

import torch
from jaxtyping import Float
from torch import Tensor

MOST_SUMMED = 4  # directions; beyond, products are as fast


def removed_part(
    value: Float[Tensor, "batch pos d_model"],
    read: Float[Tensor, "#batch rank d_model"],
    removed: Float[Tensor, "#batch rank d_model"],
) -> Float[Tensor, "batch pos d_model"]:
    """(value read') removed, row by row, in the precision of `value`.

    Half-precision products with one token each are slow on a CPU; as sums they take a quarter of the time. Like
    products, these add up in float32 and round both results to the model's precision.
    """
    one_token, is_half = value.shape[1] == 1, value.dtype in (torch.bfloat16, torch.float16)
    if not (one_token and is_half and value.device.type == "cpu" and read.shape[1] <= MOST_SUMMED):
        return (value @ read.mT) @ removed
    shares = (value.float() * read.float()).sum(-1, keepdim=True).to(value.dtype)
    return (shares.float() * removed.float()).sum(1, keepdim=True).to(value.dtype)
