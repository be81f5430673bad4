"""What has run already: a record in every executed notebook, so that a second call goes on where the first stopped."""

import hashlib
import json
import os
import uuid
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..plotting.look import model_folder
from ..prompts.loading import prompts_dir
from .notebooks import find_notebooks, parameter_defaults, read_cells

PACKAGE = Path(__file__).parents[1]
RENDERER = "plotly_mimetype"  # of figures in executed notebooks, unless PLOTLY_RENDERER says otherwise
REFERENCE = "](../figures/bundled/"  # how notebooks link the reference pictures
# What a notebook cannot do without, of what earlier ones write: beside the figures, or the sweep in the cache.
READS = {
    **dict.fromkeys(("02", "03", "04"), ("01_draw.csv",)),
    **dict.fromkeys(("05", "06"), ("01_draw.csv", "03_directions.safetensors")),
    "07": ("06_sweep_{short_name}.jsonl.gz", "06_matched_{short_name}.jsonl.gz"),
}
_KEY = "refusal_utils"
_PROMPT_FILES = (".jsonl", ".csv", ".txt", ".parquet")


@dataclass(frozen=True)
class Record:
    """One finished run: what went into it, its own name, the runs before it, and the files it left."""

    digest: str
    run: str
    earlier: dict[str, str]
    files: list[str]


def is_done(path: Path, executed: Path, inputs: str) -> bool:
    """Whether `executed` holds a finished run of the notebook that would come out the same now, of this `digest`.

    It would not where source, parameters, package, prompts or a local model changed, where an earlier notebook ran
    again, or where a file that it wrote is gone.
    """
    record = read_record(executed)
    return (
        record is not None
        and record.digest == inputs
        and record.earlier == _earlier_runs(path, executed.parent)
        and all(Path(name).exists() for name in record.files)
    )


def read_record(executed: Path) -> Record | None:
    """The record in an executed notebook, None where it did not come to its end."""
    if not executed.is_file():
        return None
    try:
        return Record(**json.loads(executed.read_text(encoding="utf-8"))["metadata"][_KEY])
    except (json.JSONDecodeError, KeyError, TypeError):  # stopped while it was written, or written by papermill alone
        return None


def write_record(path: Path, executed: Path, parameters: dict[str, Any], inputs: str) -> None:
    """Put the record of a finished run into its executed notebook, and mend its links; `inputs`: the `digest` before it began."""
    record = Record(inputs, uuid.uuid4().hex, _earlier_runs(path, executed.parent), _files(path, parameters))
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    notebook["metadata"][_KEY] = asdict(record)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":  # its pictures lie beside the folder of executed notebooks
            cell["source"] = "".join(cell["source"]).replace(REFERENCE, "](../").splitlines(keepends=True)
    executed.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def digest(path: Path, parameters: dict[str, Any]) -> str:
    """A hash of all that decides what the notebook gives: its source, the parameters, package, prompts and local model."""
    source = ["".join(cell["source"]) for cell in read_cells(path)]
    places = [Path(value) for value in parameters.values() if isinstance(value, str) and Path(value).is_absolute()]
    if parameters.get("PROMPTS") == "paper":
        places.append(_places(path, parameters)[1] / "paper_files")
    state = [_code(), source, parameters, [_stamps(place) for place in places]]
    renderer = os.environ.get("PLOTLY_RENDERER", RENDERER)  # decides what the executed copy shows
    return hashlib.sha256(json.dumps([*state, renderer], sort_keys=True).encode()).hexdigest()


@cache
def _code() -> str:
    files = [*PACKAGE.rglob("*"), *prompts_dir().rglob("*")]
    kept = [file for file in files if file.is_file() and "__pycache__" not in file.parts]
    found = hashlib.sha256()
    for file in sorted(kept):
        found.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()


def _stamps(place: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of the files of a model or of prompts, which may be one file; figures are output."""
    all_count = (place / "config.json").exists()
    files = [file for file in sorted(place.glob("*")) if all_count or file.suffix in _PROMPT_FILES]
    files += [place] if place.is_file() else []
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def _earlier_runs(path: Path, folder: Path) -> dict[str, str]:
    records = {each.name: read_record(folder / each.name) for each in find_notebooks() if each.name < path.name}
    return {name: record.run for name, record in records.items() if record}


def missing_inputs(path: Path, parameters: dict[str, Any]) -> list[Path]:
    """Those of the files that a notebook `READS` which are not there."""
    figures, cache = _places(path, parameters)
    names = [name.format(short_name=figures.name) for name in READS.get(path.name[:2], ())]
    files = [(cache if name.endswith(".gz") else figures) / name for name in names]
    return [file for file in files if not file.is_file()]


def _files(path: Path, parameters: dict[str, Any]) -> list[str]:
    """What the notebook left: all files that begin with its number, among the figures and in the cache."""
    figures, cache = _places(path, parameters)
    found = [*figures.glob(f"{path.name[:2]}_*"), *cache.glob(f"{path.name[:2]}_*{figures.name}*")]
    return sorted(str(file.resolve()) for file in found)


def _places(path: Path, parameters: dict[str, Any]) -> tuple[Path, Path]:
    """The folder of the model's figures, and that of the cache."""
    defaults = {"FIGURES_DIR": "../figures", "MODEL": "bundled", "CACHE_DIR": "../.cache"}
    values = {**defaults, **parameter_defaults(path), **parameters}
    return model_folder(values["MODEL"], path.parent / values["FIGURES_DIR"]), path.parent / values["CACHE_DIR"]
