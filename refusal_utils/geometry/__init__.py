"""How directions relate to each other, and how certain that is.

Contrasts and their uncertainty, null hypotheses, confounds, clusters and ranks, projections, and a profile of all of
these over layers and positions. Everything works on captured activations; each analysis returns a frozen dataclass.
`__init__.pyi` lists the public names, which are imported when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
