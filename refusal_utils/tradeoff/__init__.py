"""Does steering along every direction turn the same knob between refusing and over-refusing?

`controlled_set` picks prompts of which the unsteered model refuses half if it can, and `sweep` steers it along directions and
controls. `tradeoff_curves`, `knob_test` and `steering_costs` compare the directions; `match_refusal_rate` brings them to
one refusal rate, at which `style_shares`, `dependence` and `guess_direction` ask how they refuse.
"""

from .controlled_set import controlled_set, describe_buckets
from .controls import OURS, with_controls
from .costs import steering_costs
from .cross_language import CrossLanguage, cross_language
from .curves import tradeoff_curves
from .knob_test import knob_test
from .matching import common_strength, match_refusal_rate
from .rates import departures, unusable_points
from .steering_rates import SteeringRates, rates_by_length, steering_variants
from .strengths import choose_gaps
from .styles import Guesses, dependence, describe_wording, guess_direction, purity, style_shares, with_wording
from .suffix_shifts import SuffixShifts, suffix_shifts
from .sweep import Sweep, sweep, sweep_conditions
from .variance import variance_shares

__all__ = [
    "OURS",
    "CrossLanguage",
    "Guesses",
    "SteeringRates",
    "SuffixShifts",
    "Sweep",
    "choose_gaps",
    "common_strength",
    "controlled_set",
    "cross_language",
    "departures",
    "dependence",
    "describe_buckets",
    "describe_wording",
    "guess_direction",
    "knob_test",
    "match_refusal_rate",
    "purity",
    "rates_by_length",
    "steering_costs",
    "steering_variants",
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
