"""Difference in means: from the answered prompts' mean state to the refused prompts' mean state."""

from ..directions import DirectionSet
from .method import Method

METHOD = Method(
    name="difference_in_means",
    title="Difference in means",
    source="Arditi et al., arXiv 2406.11717, eq. 2; Joad et al., arXiv 2602.02132, section 3",
    fit=DirectionSet.from_states,
)
