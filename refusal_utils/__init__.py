"""Refusal geometry: is refusal in chat models one direction or many, measured with error bars.

Start with `open_study`. Names are imported when first used, so `import refusal_utils` alone does not load PyTorch;
`__init__.pyi` lists them.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
