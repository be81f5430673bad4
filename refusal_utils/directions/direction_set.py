"""A set of named refusal directions with their provenance: where they were read, on which model, from which prompts."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..checks import invalid, require
from ..model.artifacts import load_tensors, require_same_model, save_tensors
from ..model.chat_model import ChatModel
from .estimation import cosine_matrix, mean_difference, mean_direction, require_unit

Operation = Literal["add", "project"]


@dataclass(frozen=True)
class Provenance:
    """Where directions come from and what they are for.

    `operation`: what they are meant for, adding to the stream or projecting on. `hook`, `layer`, `pos`: where they were
    read. `draw`: digest of the prompts (`draw_digest`). `model`: notes of the model (`artifacts.model_notes`).
    """

    layer: int
    pos: int | None = None
    hook: str = "resid_pre"
    operation: Operation = "add"
    estimator: str = "difference in means"
    draw: str = ""
    model: dict[str, Any] = field(default_factory=dict, hash=False)
    versions: dict[str, str] = field(
        default_factory=lambda: {name: version(name) for name in ("torch", "transformer-lens")}, hash=False
    )


@dataclass(frozen=True, eq=False)
class DirectionSet:
    """Unit directions by name, the gap between the two means along each, and their provenance.

    `gaps` are in units of the residual stream; NaN where they are not known. Behaves like a mapping from name to
    direction [d_model]: `directions["advice"]`, `directions.items()`, `len(directions)`.
    """

    names: tuple[str, ...]
    vectors: Float[Tensor, "category d_model"] = field(repr=False)
    gaps: Float[Tensor, " category"] = field(repr=False)
    provenance: Provenance

    def __post_init__(self) -> None:
        """Raise `ValueError` unless there is one unit vector and one gap per name."""
        require(
            len(set(self.names)) == len(self.vectors) == len(self.gaps),
            "DirectionSet",
            "every direction needs one name of its own and one gap",
            f"{len(set(self.names))} names, {len(self.vectors)} directions, {len(self.gaps)} gaps",
            "Pass as many of each.",
        )
        for vector in self.vectors:
            require_unit("DirectionSet", vector)

    @classmethod
    def from_states(
        cls,
        refused: Mapping[str, Float[Tensor, "_ d_model"]],
        answered: Float[Tensor, "answered_prompt d_model"],
        provenance: Provenance,
    ) -> "DirectionSet":
        """The difference in means of each refused side against the answered prompts. Raises as `mean_direction`."""
        differences = [mean_difference(states, answered) for states in refused.values()]
        vectors = torch.stack([mean_direction(states, answered) for states in refused.values()])
        return cls(tuple(refused), vectors, torch.stack([each.norm() for each in differences]), provenance)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
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

    def cosines(self) -> Float[Tensor, "category category"]:
        """Plain cosines between all pairs."""
        return cosine_matrix(self.vectors)

    def _index(self, name: str) -> int:
        if name not in self.names:
            raise invalid(
                "DirectionSet", f"the name must be one of {', '.join(self.names)}", repr(name), "Choose one of these."
            )
        return self.names.index(name)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file whose header states operation, hook, layer, position, norm, model and draw."""
        notes = asdict(self.provenance)
        own = notes.pop("model")
        tensors = {f"{name}": vector.float() for name, vector in self.items()}
        return save_tensors(path, tensors, {**own, **notes, "norm": 1.0, "gaps": self.gaps.tolist()})

    @classmethod
    def load(
        cls, path: str | Path, chat: ChatModel | None = None, *, layer: int | None = None, hook: str | None = None
    ) -> "DirectionSet":
        """The set in a file of `save`.

        Raises `ValueError` for another kind of file, and where it was read from another model than `chat`, another
        layer or another hook than asked for (None: any).
        """
        tensors, notes = load_tensors(path)
        if chat is not None:
            require_same_model("DirectionSet.load", notes, chat)
        for name, asked in (("layer", layer), ("hook", hook)):
            if asked not in (None, notes.get(name)):
                raise invalid(
                    "DirectionSet.load",
                    f"the directions must have been read at {name} {asked}",
                    f"{name} {notes.get(name)} in {path}",
                    "A direction used one site off fails silently: estimate it where it is used.",
                )
        own = {name: notes[name] for name in ("layer", "pos", "hook", "operation", "estimator", "draw", "versions")}
        model = {name: notes[name] for name in notes.keys() - own.keys() - {"norm", "gaps"}}
        return cls(
            tuple(tensors),
            torch.stack([*tensors.values()]),
            torch.tensor(notes["gaps"]),
            Provenance(**own, model=model),
        )
