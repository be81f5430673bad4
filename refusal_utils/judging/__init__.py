"""Judging responses: whether and how a response refuses, whether it is text at all, and whether people agree.

A judge is a function of prompt and response that returns a `Judgement`. The default searches for phrases; `named_judge`
gives the others. A new judge is one file in this folder with a `NAME` and a function `load()`.
"""

from .judgement import STYLES, Judge, Judgement
from .labels import agreement, read_labels, worst_errors, write_label_sheet
from .measuring import measure_judge
from .phrase_judge import judge_response
from .registry import named_judge

__all__ = [
    "STYLES",
    "Judge",
    "Judgement",
    "agreement",
    "judge_response",
    "measure_judge",
    "named_judge",
    "read_labels",
    "worst_errors",
    "write_label_sheet",
]
