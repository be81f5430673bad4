"""Does steering along every direction turn the same knob between refusing and over-refusing?

`controlled_set` picks prompts that the unsteered model half refuses, `sweep` steers it along directions at several
strengths, `tradeoff_curves` and `knob_test` compare the curves of refusal against over-refusal, `steering_costs` puts the
strengths on other axes, and `match_refusal_rate` brings all directions to one refusal rate, at which `style_shares`,
`dependence` and `guess_direction` ask how they refuse.
"""

from .controlled_set import controlled_set
from .costs import SteeringCosts, steering_costs
from .curves import TradeoffCurves, tradeoff_curves
from .knob_test import KnobTest, knob_test
from .matching import match_refusal_rate
from .outcomes import Outcomes
from .rates import choose_strength, rate_table
from .styles import Guess, Guesses, StyleShares, dependence, guess_direction, style_shares
from .sweep import Sweep, sweep, sweep_conditions
from .variance import variance_shares

__all__ = [
    "Guess",
    "Guesses",
    "KnobTest",
    "Outcomes",
    "SteeringCosts",
    "StyleShares",
    "Sweep",
    "TradeoffCurves",
    "choose_strength",
    "controlled_set",
    "dependence",
    "guess_direction",
    "knob_test",
    "match_refusal_rate",
    "rate_table",
    "steering_costs",
    "style_shares",
    "sweep",
    "sweep_conditions",
    "tradeoff_curves",
    "variance_shares",
]
