"""Change what a chat model does, and judge its responses.

An intervention (`Addition`, `Ablation`, `PartialAblation`, `SequentialAblation`, `HeadReplacement`) is a value. A
`Condition` is a set of interventions with the direction and the strength that they stand for. `intervene` applies
interventions to whatever runs inside a `with` block. `generate` answers many prompts under many conditions in shared
batches, and `respond` judges the answers.
"""

from .conditions import UNSTEERED, Condition, ablation_condition, steering_condition
from .contexts import intervene
from .control_tokens import find_control_tokens, opening_proxy
from .generation import generate
from .interventions import Ablation, Addition, Intervention
from .responses import respond
from .shared_passes import first_token_logits

__all__ = [
    "UNSTEERED",
    "Ablation",
    "Addition",
    "Condition",
    "Intervention",
    "ablation_condition",
    "find_control_tokens",
    "first_token_logits",
    "generate",
    "intervene",
    "opening_proxy",
    "respond",
    "steering_condition",
]
