"""Does steering along every direction turn the same knob between refusing and over-refusing?

`controlled_set` picks prompts of which the unsteered model refuses half if it can, and `sweep` steers it along
directions and controls. `tradeoff_curves`, `knob_test` and `steering_costs` compare the directions;
`match_refusal_rate` brings them to one refusal rate, at which `Wording` asks how they refuse.

`cost_curves` compares methods at equal cost, because they find directions of any length at any place. `recognition`
asks what a steered model still knows, and `ablation_effects` which prompts lose their refusals with which direction.
`cross_language` and `suffix_shifts` ask whether a direction survives a change of wording, and `force_first_tokens`
whether a threshold on the first token is a better knob.
"""

from .controlled_set import controlled_set, cost_prompts, describe_buckets
from .controls import OURS, control_directions, with_controls
from .cost_curves import cost_curves
from .costs import steering_costs
from .cross_effects import ablation_effects
from .cross_language import cross_language
from .curves import tradeoff_curves
from .equal_cost import MethodDials
from .knob_test import knob_test
from .matching import common_strength, match_refusal_rate
from .recognition import recognition
from .refusal_tokens import force_first_tokens
from .steering_rates import SteeringRates, rates_by_length, steering_variants
from .strengths import choose_gaps
from .styles import Guesses, Wording
from .suffix_shifts import suffix_shifts
from .sweep import Sweep, sweep, sweep_conditions

__all__ = [
    "OURS",
    "Guesses",
    "MethodDials",
    "SteeringRates",
    "Sweep",
    "Wording",
    "ablation_effects",
    "choose_gaps",
    "common_strength",
    "control_directions",
    "controlled_set",
    "cost_curves",
    "cost_prompts",
    "cross_language",
    "describe_buckets",
    "force_first_tokens",
    "knob_test",
    "match_refusal_rate",
    "rates_by_length",
    "recognition",
    "steering_costs",
    "steering_variants",
    "suffix_shifts",
    "sweep",
    "sweep_conditions",
    "tradeoff_curves",
    "with_controls",
]
