"""Other engines for steered generation, such as vLLM; each is used only after it has passed a parity gate.

A backend answers requests, each a prompt under a condition of its own (`backend`). `checked_backend` compares it with
`generate` on at least 20 prompts and returns a `CheckedBackend`, the only way to get responses from it. `vllm_lens` is
the one backend so far. It was tested against an imitation of the plugin, not on vLLM.
"""

from .backend import Backend, Reply, Request
from .parity import CheckedBackend, Parity, checked_backend

__all__ = ["Backend", "CheckedBackend", "Parity", "Reply", "Request", "checked_backend"]
