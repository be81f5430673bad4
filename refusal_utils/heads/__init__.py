"""Which attention heads and MLPs write a refusal direction, how certain that is, and what replacing heads does.

`component_shares` splits projections exactly; `attribute_heads` compares refused with benign prompts; `HeadTrial`,
`replace_top_heads` and `ablate_single_heads` test attributions by intervention.
"""

from .attribution import HeadAttribution, attribute_heads
from .effects import HeadEffects, replace_top_heads
from .overlap import top_heads
from .refusal_opening import RefusalOpening
from .replacement import HeadTrial
from .shares import Shares, component_shares, logit_shares
from .single_heads import SingleHeads, ablate_single_heads

__all__ = [
    "HeadAttribution",
    "HeadEffects",
    "HeadTrial",
    "RefusalOpening",
    "Shares",
    "SingleHeads",
    "ablate_single_heads",
    "attribute_heads",
    "component_shares",
    "logit_shares",
    "replace_top_heads",
    "top_heads",
]
