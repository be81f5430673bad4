"""Steering vectors that other libraries wrote: plain tensors, repeng control vectors, steering-vectors states.

Sources of the formats: repeng's `ControlVector.export_gguf` (architecture `controlvector`, tensors `direction.<layer>`,
added to the output of the block); the `SteeringVector` of steering-vectors (`layer_activations` by layer,
`layer_type`).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from ..checks import invalid, require

# The hook at which steering-vectors adds a vector, by its `layer_type`: the module's output.
HOOK_OF_LAYER_TYPE = {"decoder_block": "resid_post", "self_attn": "attn_out", "mlp": "mlp_out"}


def read_vectors(source: Any, layer: int, hook: str) -> dict[str, Float[Tensor, " d_model"]]:
    """The vectors in `source` by name, as stored (their norms are kept).

    `source` is a path (`.pt`, `.safetensors` or `.gguf`), a tensor, a mapping of tensors, or a `SteeringVector`. If
    the source has one vector per layer, the vector of `layer` is returned under the file's name. Raises `ValueError`
    for an unknown format, a missing layer, tensors that are not vectors, and a hook at which the source's library does
    not add them.
    """
    name, stored = "imported", source
    if isinstance(source, str | Path):
        name, stored = Path(source).stem, _read(Path(source))
    stored = vars(stored) if hasattr(stored, "layer_activations") else stored
    if isinstance(stored, Mapping) and "layer_activations" in stored:
        kind = stored.get("layer_type", "decoder_block")
        must = f"a vector of layer_type {kind} belongs to {HOOK_OF_LAYER_TYPE.get(kind)}"
        todo = "A vector used at another hook fails silently: pass the hook it was made for."
        require(hook == HOOK_OF_LAYER_TYPE.get(kind), "import_vectors", must, hook, todo)
        stored = {int(key): vector for key, vector in stored["layer_activations"].items()}
    if isinstance(stored, Mapping) and all(isinstance(key, int) for key in stored):
        todo = "Choose one of these layers."
        require(layer in stored, "import_vectors", f"layer {layer} must be stored", sorted(stored), todo)
        stored = stored[layer]
    vectors = dict(stored) if isinstance(stored, Mapping) else {name: stored}
    for each, vector in vectors.items():
        _require_vector(each, vector)
    return {str(each): vector.float() for each, vector in vectors.items()}


def _read(path: Path) -> Any:
    readers: dict[str, Callable[[Path], Any]] = {".gguf": _read_gguf, ".safetensors": load_file}
    readers |= dict.fromkeys((".pt", ".pth", ".bin"), lambda file: torch.load(file, "cpu", weights_only=True))
    must, todo = f"the file must exist and end in {', '.join(readers)}", "Save the tensors in one of these formats."
    require(path.suffix in readers and path.is_file(), "import_vectors", must, path, todo)
    return readers[path.suffix](path)


def _read_gguf(path: Path) -> dict[str, Any]:
    try:
        import gguf
    except ImportError as error:
        todo = "Run `pip install gguf`."
        raise invalid("import_vectors", "the package gguf is needed for .gguf files", "none", todo) from error
    tensors = [each for each in gguf.GGUFReader(path).tensors if each.name.startswith("direction.")]
    vectors = {int(each.name.removeprefix("direction.")): torch.tensor(each.data) for each in tensors}
    # repeng adds a vector to the output of its block, as steering-vectors does by default.
    return {"layer_activations": vectors}


def _require_vector(name: object, vector: Any) -> None:
    found = f"shape {tuple(vector.shape)}" if isinstance(vector, Tensor) else type(vector).__name__
    holds = isinstance(vector, Tensor) and vector.ndim == 1
    todo = "Pass a mapping with the vectors you mean."
    require(holds, "import_vectors", f"{name!r} must be a vector [d_model]", found, todo)
