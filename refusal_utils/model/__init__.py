"""Chat models: load one, encode prompts with its template, capture activations, and keep results on disk.

`chat_model` loads a model (`loading`, `bridging`, `as_found`, `chat_format`, `defaults` and `fingerprint` are its parts),
`capture` reads activations, `open_hooks` notices hooks, `batching` runs any computation over many prompts, and `store` and `artifacts` write files that survive
crashes and know their model.
"""

from .capture import Activations, capture_activations
from .chat_model import ChatModel, load_chat_model

__all__ = ["Activations", "ChatModel", "capture_activations", "load_chat_model"]
