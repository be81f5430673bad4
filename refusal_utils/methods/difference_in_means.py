"""Difference in means: from the answered prompts' mean state to the refused prompts' mean state."""

from jaxtyping import Float
from torch import Tensor

from ..directions import mean_difference, mean_direction
from .method import StateMethod, per_category


def difference(
    refused: Float[Tensor, "refused_prompt d_model"], answered: Float[Tensor, "answered_prompt d_model"]
) -> Float[Tensor, " d_model"]:
    """mean(refused) - mean(answered). Raises `ValueError` if the two means coincide."""
    mean_direction(refused, answered)  # raises if there is none
    return mean_difference(refused, answered)


METHOD = StateMethod(
    name="difference_in_means",
    title="Difference in means",
    source="Arditi et al., arXiv 2406.11717, eq. 2; Joad et al., arXiv 2602.02132, section 3",
    find=per_category(difference),
)
