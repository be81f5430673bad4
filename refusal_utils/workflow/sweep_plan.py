"""What a sweep over models measures: the models, the prompts, the conditions, and how they are cut into blocks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..checks import require
from ..model.names import cache_key
from ..prompts.categories import BENIGN
from ..prompts.draws import draw_prompts, held_out
from ..prompts.loading import load_prompts

if TYPE_CHECKING:
    from .sweep_worker import Worker


@dataclass(frozen=True)
class Task:
    """One block of prompts of one model, under all conditions: the unit of work."""

    model: str
    number: int


@dataclass(frozen=True)
class Receipt:
    """A finished block: the file that has its rows, their number and how long they took; or the error of a failed one.

    `was_there`: it had been computed before. `device`: what computed it, see `Worker.device`.
    """

    task: Task
    file: str = ""
    n_rows: int = 0
    seconds: float = 0.0
    was_there: bool = False
    device: str = ""
    error: str = ""


@dataclass(frozen=True)
class SweepPlan:
    """A sweep: every model steered along its own directions, on the same prompts.

    `out` is the folder of results, which all workers must share. `n_prompts` a category estimate the directions, drawn
    by label and therefore the same for all models; `n_held_out` others of each kind are answered under every condition.
    `gaps`, `control_gaps`: see `choose_gaps`. `block`: prompts in one unit of work. `threads`: CPU threads of a worker.
    `layer`, `pos`, `dtype`: as in `open_study`.
    """

    models: tuple[str, ...]
    out: Path
    prompts: str = "builtin"
    n_prompts: int = 96
    n_held_out: int = 8
    gaps: Any = None
    control_gaps: Any = None
    n_controls: int = 5
    max_new_tokens: int = 50
    block: int = 8
    threads: int = 1
    seed: int = 0
    layer: Any = None
    pos: int | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        """Raise `ValueError` for a number below 1, and for no models or one that is given twice."""
        for name in ("n_prompts", "n_held_out", "n_controls", "max_new_tokens", "block", "threads"):
            require(getattr(self, name) >= 1, "sweep", f"{name} must be at least 1", getattr(self, name), "Raise it.")
        keys = [cache_key(model) for model in self.models]
        twice = sorted({name for name, key in zip(self.models, keys, strict=True) if keys.count(key) > 1})
        must = "there must be models, each of them once"
        require(bool(keys) and not twice, "sweep", must, ", ".join(twice) or "none", "Correct --models.")

    @property
    def cache(self) -> Path:
        """The folder of activations and of effects by place."""
        return self.out / "cache"

    @property
    def blocks(self) -> Path:
        """The folder of finished blocks and of directions, named by hashes of their contents."""
        return self.out / "blocks"

    @cached_property
    def _loaded(self) -> pd.DataFrame:
        return load_prompts(source=self.prompts, cache_dir=self.cache)

    @cached_property
    def draw(self) -> pd.DataFrame:
        """The prompts that directions are estimated from: at most `n_prompts` of every category, drawn by label."""
        rows = self._loaded[self._loaded["split"] == "train"]
        n = min(self.n_prompts, int(rows.groupby("category").size().min()))
        return draw_prompts(rows, "label", n, seed=self.seed).assign(prompts=self.prompts)

    @cached_property
    def swept(self) -> pd.DataFrame:
        """The prompts that are answered, in the order of the blocks: columns id, category, kind, text and harmful.

        Raises `ValueError` if there are none.
        """
        rows = held_out(self._loaded, self.draw).sample(frac=1, random_state=self.seed)
        rows = rows.groupby("kind").head(self.n_held_out).sort_index().reset_index(drop=True)
        require(len(rows) > 0, "sweep", "there must be prompts that made no direction", "none", "Lower n_prompts.")
        return rows.assign(harmful=rows["category"] != BENIGN)[["id", "category", "kind", "text", "harmful"]]

    @property
    def n_blocks(self) -> int:
        """How many blocks the prompts of one model make."""
        return -(-len(self.swept) // self.block)

    def worker(self, model: str) -> "Worker":
        """A loaded model, in the process that computes. Raises `ValueError` as `Worker` does."""
        from .sweep_worker import Worker  # loads PyTorch, which only the processes that compute need

        return Worker(self, model)

    def texts(self, number: int) -> list[str]:
        """The prompts of a block."""
        return list(self.swept["text"][self._rows(number)])

    def ids(self, number: int) -> list[str]:
        """The ids of a block's prompts."""
        return list(self.swept["id"][self._rows(number)])

    def tasks(self) -> Sequence[Task]:
        """All units of work, model by model."""
        return [Task(model, number) for model in self.models for number in range(self.n_blocks)]

    def _rows(self, number: int) -> slice:
        return slice(number * self.block, (number + 1) * self.block)
