"""Prompts: the eleven categories, the files and public data sets they are read from, and draws of prompts.

Nothing here runs a model. `load_prompts` gives one frame of prompts whatever their source, `draw_prompts` chooses those
that directions are estimated from, and `held_out` those that remain for tests. Names are imported when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "categories": ["CATEGORY_IDS"],
        "draws": ["draw_prompts", "held_out", "read_draw"],
        "languages": ["load_languages"],
        "loading": ["load_prompts"],
        "suffixes": ["load_suffixes", "with_suffixes"],
        "summary": ["summarize_prompts"],
        "twins": ["compare_twins", "contrast_pairs", "twin_pairs"],
    },
)
