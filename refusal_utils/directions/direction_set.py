"""Named refusal directions with their provenance: where they were read, on which model, from which prompts."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import require, require_known
from ..model.artifacts import load_tensors, model_notes, require_same_model, save_tensors
from ..model.chat_model import ChatModel
from .ablation import require_unit
from .comparison import cosine_frame
from .estimation import mean_difference, mean_directions, normalize
from .foreign_files import read_vectors

Operation = Literal["add", "project"]


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformer-lens")}


@dataclass(frozen=True)
class Provenance:
    """Where directions come from and what they are for.

    `hook`, `layer`, `pos`: where they were read. `operation`: whether they are meant to be added to the stream or
    projected out of it. `estimator`, `settings`: the method and its options. `draw`: digest of the prompts
    (`draw_digest`). `model`: name, fingerprint and dtype of the model (`model_notes`).
    """

    layer: int
    pos: int | None = None
    hook: str = "resid_pre"
    operation: Operation = "add"
    estimator: str = "difference_in_means"
    draw: str | None = None
    model: dict[str, Any] = field(default_factory=dict, hash=False)
    versions: dict[str, str] = field(default_factory=_versions, hash=False)
    settings: dict[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, eq=False)
class DirectionSet:
    """Unit directions by name, the gap between the two means along each, and their provenance.

    `gaps` are in units of the residual stream, NaN if unknown. A set behaves like a mapping from name to direction
    [d_model]: `directions["advice"]`, `directions.items()`, `len(directions)`.
    """

    names: tuple[str, ...]
    vectors: Float[Tensor, "category d_model"] = field(repr=False)
    gaps: Float[Tensor, " category"] = field(repr=False)
    provenance: Provenance

    def __post_init__(self) -> None:
        """Raise `ValueError` unless each name has one unit vector and one gap."""
        names, vectors, gaps = len(set(self.names)), len(self.vectors), len(self.gaps)
        must, got = "every direction needs a unique name and a gap", f"{names} names, {vectors} directions, {gaps} gaps"
        require(names == vectors == gaps, "DirectionSet", must, got, "Pass equally many of each.")
        require_unit("DirectionSet", self.vectors)

    @classmethod
    def from_states(
        cls,
        refused: Mapping[str, Float[Tensor, "_ d_model"]],
        answered: Float[Tensor, "answered_prompt d_model"],
        provenance: Provenance,
    ) -> "DirectionSet":
        """The difference in means of each refused side and the answered prompts. Raises as `mean_direction` does."""
        vectors = mean_directions(refused, answered)
        gaps = torch.stack([mean_difference(states, answered).norm() for states in refused.values()])
        return cls(tuple(refused), vectors, gaps, provenance)

    @classmethod
    def import_vectors(
        cls,
        source: Any,
        *,
        layer: int,
        hook: str,
        operation: Operation,
        norm_is_gap: bool = False,
        chat: ChatModel | None = None,
    ) -> "DirectionSet":
        """The set in a file or object of another library. The caller states its place and its purpose.

        `source`: see `read_vectors`. Vectors are normalised; with `norm_is_gap` their norms become the gaps, otherwise
        the gaps are NaN. With `chat` the set belongs to that model. Raises `ValueError` as `read_vectors` does, and if
        the vectors are not as wide as the model.
        """
        found = read_vectors(source, layer, hook)
        vectors = torch.stack([*found.values()])
        if chat is not None:
            width = vectors.shape[1]
            must = f"vectors of {chat.name} must have width {chat.d_model}"
            require(width == chat.d_model, "import_vectors", must, width, "Pass the model they were made for.")
        gaps = vectors.norm(dim=1) if norm_is_gap else torch.full((len(found),), torch.nan)
        model = {} if chat is None else model_notes(chat)
        place = Provenance(layer, None, hook, operation, "imported", model=model)
        return cls(tuple(found), normalize(vectors), gaps, place)

    def __len__(self) -> int:
        """How many directions there are."""
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        """The names in order."""
        return iter(self.names)

    def __getitem__(self, name: str) -> Float[Tensor, " d_model"]:
        """The unit direction called `name`. Raises `ValueError` for an unknown name."""
        return self.vectors[self._index(name)]

    def gap(self, name: str) -> float:
        """The distance between the two means of `name`, in units of the residual stream."""
        return float(self.gaps[self._index(name)])

    def items(self) -> list[tuple[str, Float[Tensor, " d_model"]]]:
        """(name, unit direction [d_model]) of every direction, in order."""
        return list(zip(self.names, self.vectors, strict=True))

    def cosine_frame(self) -> pd.DataFrame:
        """Plain cosines between all pairs, with the names on both sides."""
        return cosine_frame(self.vectors, self.names)

    def _index(self, name: str) -> int:
        require_known("DirectionSet", "the name", name, self.names)
        return self.names.index(name)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file whose header records operation, hook, layer, position, norm, model and draw."""
        notes = asdict(self.provenance)
        model = notes.pop("model")
        tensors = {name: vector.float() for name, vector in self.items()}
        return save_tensors(path, tensors, {**model, **notes, "norm": 1.0, "gaps": self.gaps.tolist()})

    @classmethod
    def load(
        cls,
        path: str | Path,
        chat: ChatModel | None = None,
        *,
        layer: int | None = None,
        hook: str | None = None,
        operation: Operation | None = None,
    ) -> "DirectionSet":
        """The set that `save` wrote to a file.

        Raises `ValueError` for another kind of file, and for directions of a model other than `chat`, or of a layer,
        hook or operation other than the one asked for (None accepts any).
        """
        tensors, notes = load_tensors(path)
        if chat is not None:
            unknown = {"model": "an unnamed model", "fingerprint": "no fingerprint"}
            require_same_model("DirectionSet.load", {**unknown, **notes}, chat)
        for name, asked in (("layer", layer), ("hook", hook), ("operation", operation)):
            require(
                asked in (None, notes.get(name)),
                "DirectionSet.load",
                f"the directions must be for {name} {asked}",
                f"{name} {notes.get(name)} in {path}",
                "A direction used at another place fails silently: estimate it where you use it.",
            )
        gaps = torch.tensor(notes.pop("gaps"))
        del notes["norm"]
        place = {name: notes.pop(name) for name in Provenance.__dataclass_fields__ if name != "model" and name in notes}
        return cls(tuple(tensors), torch.stack([*tensors.values()]), gaps, Provenance(**place, model=notes))
