"""Runs the notebooks: the command line, its settings, and records that let a second run skip what is finished.

Names are imported when first used, so that `python -m refusal_utils --help` answers without loading PyTorch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"runner": ["run_notebook", "run_notebooks"], "settings": ["Settings"]}
)
