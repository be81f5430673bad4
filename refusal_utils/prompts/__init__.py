"""Prompts: the eleven categories, the files and public data sets they are read from, and draws of prompts.

Nothing here runs a model. `load_prompts` gives one frame of prompts whatever their source, `draw_prompts` chooses those
that directions are estimated from, and `held_out` those that remain for tests.
"""

from .categories import CATEGORY_IDS
from .draws import draw_prompts, held_out, read_draw
from .languages import load_languages
from .loading import load_prompts
from .suffixes import load_suffixes, with_suffixes
from .summary import summarize_prompts
from .twins import compare_twins, twin_pairs

__all__ = [
    "CATEGORY_IDS",
    "compare_twins",
    "draw_prompts",
    "held_out",
    "load_languages",
    "load_prompts",
    "load_suffixes",
    "read_draw",
    "summarize_prompts",
    "twin_pairs",
    "with_suffixes",
]
