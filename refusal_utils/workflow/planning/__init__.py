"""Plans a run before anything runs: rows of every loop, memory, minutes from a calibration, and sizes that fit a time.

`counts` derives how many rows each notebook runs through the model from the same functions that choose its prompts;
`calibration` measures this machine; `estimate` puts both together; `fitting` chooses sizes for a given time.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "counts": ["count_rows_of"],
        "estimate": ["Plan", "make_plan"],
        "fitting": ["fit_minutes"],
    },
)
