"""Does steering along every direction turn the same knob between refusing and over-refusing?

`controlled_set` picks prompts of which the unsteered model refuses half. `sweep` steers the model along directions at
several strengths; `with_controls` adds control directions. `tradeoff_curves` and `knob_test` compare the curves of
refusal against over-refusal, and `steering_costs` measures the strengths in other units. `match_refusal_rate` brings
all directions to one refusal rate, so that `style_shares`, `dependence` and `guess_direction` can compare how they
refuse.
"""

from .controlled_set import controlled_set
from .controls import OURS, with_controls
from .costs import SteeringCosts, steering_costs
from .curves import TradeoffCurves, tradeoff_curves
from .knob_test import NO_RANGE, KnobTest, knob_test
from .matching import common_strength, match_refusal_rate
from .outcomes import Outcomes
from .rates import MIN_RR, choose_strength, departures, rate_table
from .steering_rates import SteeringRates, rates_by_length, steering_variants
from .styles import Guess, Guesses, StyleShares, dependence, guess_direction, purity, style_shares, with_wording
from .sweep import Sweep, sweep, sweep_conditions
from .variance import variance_shares

__all__ = [
    "MIN_RR",
    "NO_RANGE",
    "OURS",
    "Guess",
    "Guesses",
    "KnobTest",
    "Outcomes",
    "SteeringCosts",
    "SteeringRates",
    "StyleShares",
    "Sweep",
    "TradeoffCurves",
    "choose_strength",
    "common_strength",
    "controlled_set",
    "departures",
    "dependence",
    "guess_direction",
    "knob_test",
    "match_refusal_rate",
    "purity",
    "rate_table",
    "rates_by_length",
    "steering_costs",
    "steering_variants",
    "style_shares",
    "sweep",
    "sweep_conditions",
    "tradeoff_curves",
    "variance_shares",
    "with_controls",
    "with_wording",
]
