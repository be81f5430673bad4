"""Which attention heads and MLPs write a refusal direction, how certain that is, and what replacing heads does.

`component_shares` splits projections exactly and `HeadAttribution` compares refused with benign prompts. `HeadTrial`,
`replace_top_heads` and `ablate_single_heads` test attributions by intervention. `__init__.pyi` lists the public names,
which are imported when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
