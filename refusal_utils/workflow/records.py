"""A record in every executed notebook, so that a second run skips it if its results would be the same."""

import hashlib
import json
import os
import uuid
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ..model.names import cache_key
from ..model.work import Work
from ..notebooks import find_notebooks, read_cells, read_title
from ..prompts.loading import prompts_dir
from ..prompts.tables import PROMPT_FILES

PACKAGE = Path(__file__).parents[1]
RENDERER = "plotly_mimetype"  # for figures in executed notebooks, unless PLOTLY_RENDERER is set
_REFERENCE = "](../figures/bundled/"  # how notebooks link their reference pictures
_KEY = "refusal_utils"


@dataclass(frozen=True)
class Record:
    """A finished run: the digest of its inputs, its id, the ids of the runs that it used, and the files it wrote.

    `minutes` is the time that it took, `work` the rows and seconds of its loops (`model.work`). `chosen` has the sizes
    that `--minutes` chose, and the rule; empty if it did not.
    """

    digest: str
    run: str
    earlier: dict[str, str]
    files: list[str]
    minutes: float = 0.0
    work: dict[str, dict[str, float]] = field(default_factory=dict)
    chosen: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One notebook with its parameters, the model's folder of figures, and the cache folder."""

    notebook: Path
    parameters: dict[str, Any]
    figures: Path
    cache: Path

    @property
    def number(self) -> str:
        """The notebook's number, the prefix of its output files."""
        return self.notebook.name[:2]

    @property
    def executed(self) -> Path:
        """The path of the executed copy."""
        return self.figures / "notebooks" / self.notebook.name

    def digest(self) -> str:
        """A hash of what determines the results: source, parameters, package, prompts, local model, renderer."""
        named = ("MODEL", "EDITED", "PROMPTS", "LANGUAGES", "SUFFIXES", "SAE")
        places = [Path(self.parameters.get(name) or "") for name in named]
        places = [place for place in places if place.is_absolute()]
        if self.parameters.get("PROMPTS") == "paper":
            places.append(self.cache / "paper_files")
        source = ["".join(cell["source"]) for cell in read_cells(self.notebook)]
        renderer = os.environ.get("PLOTLY_RENDERER", RENDERER)
        state = [_code(), source, self.parameters, [_stamps(place) for place in places], renderer]
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()

    def is_done(self, digest: str) -> bool:
        """Whether the executed copy is a finished run whose results would be the same now, given this `digest`.

        They may differ if a notebook that it needs has run since then, or if a file that the run wrote is gone.
        """
        record = read_record(self.executed)
        return (
            record is not None
            and record.digest == digest
            and record.earlier == self._earlier_runs()
            and all(Path(name).exists() for name in record.files)
        )

    def write_record(
        self, digest: str, minutes: float = 0.0, work: Work | None = None, chosen: dict[str, Any] | None = None
    ) -> None:
        """Put the record of a finished run into the executed copy, and point its pictures at this run's figures."""
        spent = round(minutes, 3), (work or Work()).as_dict(), chosen or {}
        record = Record(digest, uuid.uuid4().hex, self._earlier_runs(), self._files(), *spent)
        notebook = json.loads(self.executed.read_text(encoding="utf-8"))
        notebook["metadata"][_KEY] = asdict(record)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = "".join(cell["source"]).replace(_REFERENCE, "](../").splitlines(keepends=True)
        self.executed.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @property
    def needs(self) -> tuple[str, ...]:
        """The numbers of the notebooks that must run before this one."""
        return read_title(self.notebook).earlier

    def missing_inputs(self) -> list[Path]:
        """The files that the notebook's title cell names under **Needs** and that do not exist."""
        names = [name.replace("<model>", self._key) for name in read_title(self.notebook).inputs]
        files = [(self.cache if name.endswith(".gz") else self.figures) / name for name in names]
        return [file for file in files if not file.is_file()]

    @property
    def _key(self) -> str:
        """The key of the model in the names of cached files."""
        return cache_key(self.parameters.get("MODEL", self.figures.name))

    def _earlier_runs(self) -> dict[str, str]:
        names = [path.name for path in find_notebooks() if path.name[:2] in self.needs]
        records = {name: read_record(self.executed.parent / name) for name in names}
        return {name: record.run for name, record in records.items() if record}

    def _files(self) -> list[str]:
        written = [*self.figures.glob(f"{self.number}_*"), *self.cache.glob(f"{self.number}_*_{self._key}.*")]
        return sorted(str(file.resolve()) for file in written)


def read_record(executed: Path) -> Record | None:
    """The record in an executed notebook, or None if it did not finish."""
    if not executed.is_file():
        return None
    try:
        return Record(**json.loads(executed.read_text(encoding="utf-8"))["metadata"][_KEY])
    except (json.JSONDecodeError, KeyError, TypeError):  # interrupted while writing, or written by papermill alone
        return None


@cache
def _code() -> str:
    found = hashlib.sha256()
    for file in sorted([*PACKAGE.rglob("*"), *prompts_dir().rglob("*")]):
        if file.is_file() and "__pycache__" not in file.parts:
            found.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()


def _stamps(place: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of a file, of all files in a model's folder, or of a folder's prompt files."""
    is_model = (place / "config.json").exists()
    inside = [
        file for file in sorted(place.glob("*")) if is_model or file.suffix.lower() in (*PROMPT_FILES, ".parquet")
    ]
    files = [place] if place.is_file() else inside
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
