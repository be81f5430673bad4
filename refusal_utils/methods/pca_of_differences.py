"""PCA of differences: the axis along which refused and answered prompts differ most, over all pairs."""

import torch
from jaxtyping import Float
from torch import Tensor

from .difference_in_means import difference
from .method import StateMethod, per_category


def top_component(
    refused: Float[Tensor, "refused_prompt d_model"], answered: Float[Tensor, "answered_prompt d_model"]
) -> Float[Tensor, " d_model"]:
    """The first principal axis of the differences refused - answered of all pairs, not centred.

    The source pairs prompts at random. Over all pairs the second moment is exactly the sum of both covariances and the
    outer product of the difference in means, so no pair is formed and the order of prompts does not matter. Raises
    `ValueError` if the two means coincide.
    """
    between = difference(refused, answered).double()[None]
    within = [(side - side.mean(0)) / len(side) ** 0.5 for side in (refused.double(), answered.double())]
    return torch.linalg.svd(torch.cat([*within, between]), full_matrices=False).Vh[0].float()


METHOD = StateMethod(
    name="pca_of_differences",
    title="PCA of differences",
    source="Zou et al., arXiv 2310.01405, section 3.1",
    find=per_category(top_component),
)
