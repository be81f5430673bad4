"""Judging responses: whether and how a response refuses, whether it is text at all, and whether people agree.

A judge is a function of prompt and response that returns a `Judgement`. The default searches for phrases; `named_judge`
gives the others. A new judge is one file in this folder with a `NAME` and a function `load()`. Names are imported when
first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "judgement": ["STYLES", "Judge", "Judgement"],
        "labels": ["agreement", "read_labels", "worst_errors", "write_label_sheet"],
        "measuring": ["measure_judge"],
        "phrase_judge": ["judge_response"],
        "registry": ["named_judge"],
    },
)
