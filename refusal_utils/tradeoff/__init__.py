"""Does steering along every direction turn the same knob between refusing and over-refusing?

`controlled_set` picks prompts of which the unsteered model refuses half if it can, and `sweep` steers it along
directions and controls. `tradeoff_curves`, `knob_test` and `steering_costs` compare the directions; `match_refusal_rate`
brings them to one refusal rate, at which `style_shares`, `dependence` and `guess_direction` ask how they refuse.

`cost_curves` compares methods at equal cost, because they find directions of any length at any place. `recognition`
asks what a steered model still knows, and `cross_effects` which prompts lose their refusals with which direction.
"""

from .controlled_set import controlled_set, cost_prompts, describe_buckets
from .controls import OURS, control_directions, with_controls
from .cost_curves import CostCurves, cost_curves, count_gains
from .costs import steering_costs
from .cross_effects import CrossEffects, cross_effects
from .cross_language import CrossLanguage, cross_language
from .curves import advantage, tradeoff_curves
from .equal_cost import BUDGETS, EqualCost, ablations_at_equal_cost, equal_cost, method_dials, strengths_at_cost
from .knob_test import knob_test
from .matching import common_strength, match_refusal_rate
from .rates import departures, unusable_points
from .recognition import Recognition, recognition
from .refusal_tokens import THRESHOLDS, ForcedResponses, force_first_tokens
from .steering_rates import SteeringRates, rates_by_length, steering_variants
from .strengths import choose_gaps
from .styles import Guesses, dependence, describe_wording, guess_direction, purity, style_shares, with_wording
from .suffix_shifts import SuffixShifts, coefficient_figure, suffix_shifts
from .sweep import Sweep, sweep, sweep_conditions
from .variance import variance_shares

__all__ = [
    "BUDGETS",
    "OURS",
    "THRESHOLDS",
    "CostCurves",
    "CrossEffects",
    "CrossLanguage",
    "EqualCost",
    "ForcedResponses",
    "Guesses",
    "Recognition",
    "SteeringRates",
    "SuffixShifts",
    "Sweep",
    "ablations_at_equal_cost",
    "advantage",
    "choose_gaps",
    "coefficient_figure",
    "common_strength",
    "control_directions",
    "controlled_set",
    "cost_curves",
    "cost_prompts",
    "count_gains",
    "cross_effects",
    "cross_language",
    "departures",
    "dependence",
    "describe_buckets",
    "describe_wording",
    "equal_cost",
    "force_first_tokens",
    "guess_direction",
    "knob_test",
    "match_refusal_rate",
    "method_dials",
    "purity",
    "rates_by_length",
    "recognition",
    "steering_costs",
    "steering_variants",
    "strengths_at_cost",
    "style_shares",
    "suffix_shifts",
    "sweep",
    "sweep_conditions",
    "tradeoff_curves",
    "unusable_points",
    "variance_shares",
    "with_controls",
    "with_wording",
]
