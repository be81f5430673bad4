"""Chat models: load one, encode prompts with its template, capture activations, and keep results on disk.

`chat_model` loads a model (`loading`, `bridging`, `as_found`, `chat_format`, `defaults` and `fingerprint` are its
parts), `capture` reads activations, `open_hooks` notices hooks, `batching` runs any computation over many prompts, and
`store` and `artifacts` write files that survive crashes and know their model. `names` gives every model a folder of its
own. Names are imported when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "capture": ["Activations", "capture_activations"],
        "chat_model": ["ChatModel", "load_chat_model"],
    },
)
