"""What a run leaves to look at: a gallery of all models run so far, an explorer of their recorded sweeps, a live one.

`build_gallery` writes the two pages next to the models' folders of figures; both work offline. `probe_prompt` and
`dials` ask a loaded model the same questions, for the notebook `explorer`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"pages": ["build_gallery"], "probe": ["Probe", "probe_prompt"], "dials": ["dials"]}
)
