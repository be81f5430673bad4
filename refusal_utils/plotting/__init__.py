"""Figures: one look, one way to save, and one module of figures per subject.

`LOOK`, `POINT_LOOK` and `LINE_LOOK` are options for plotly express that fix the size, the template, and the colour,
marker and line style of every category. `save_figure` writes a figure and ensures that it names its model.
`__init__.pyi` lists the public names, which are imported when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
