"""Several models next to each other: claims, maps of cosines, trade-off curves and methods.

Everything is read from the tables that the notebooks wrote, so it works in a checkout where no model was run.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..checks import require
from ..model.names import BUNDLED, FIGURES, owner
from ..plotting.saving import write_figure
from ..prompts.categories import CATEGORY_IDS
from .claims import CLAIMS_FILE, check_claims
from .model_claims import ModelClaims
from .model_curves import ModelCurves, ModelMethods
from .model_maps import ModelMaps
from .setting import figures_of

DRAW = "01_draw.csv"  # every run begins with it
COSINES, CURVES, RATES = "03_cosine_matrix.csv", "07_tradeoff.csv", "07_rates.csv"
METHODS, GAINS = "09_methods_map.csv", "09_gains.csv"
_TABLES = (DRAW, CLAIMS_FILE, COSINES, CURVES)  # a folder with one of these is one of figures
CLAIMS_FIGURE, COSINES_FIGURE, LIKENESS_FIGURE = "models_claims", "models_cosines", "models_likeness"
TRADEOFF_FIGURE, METHODS_FIGURE = "models_tradeoff", "models_methods"


@dataclass(frozen=True)
class Models:
    """The folders of figures of several models or runs, by the names that they get in tables and figures."""

    folders: Mapping[str, Path]

    @cached_property
    def claims(self) -> ModelClaims:
        """The four claims, checked on every model's tables."""
        return ModelClaims.of({name: check_claims(at, owner(at) or at.name) for name, at in self.folders.items()})

    @cached_property
    def maps(self) -> ModelMaps | None:
        """The maps of cosines; None if no model has one."""
        ids, found = list(CATEGORY_IDS), self._tables(COSINES, index_col=0)
        maps = {_titled(name, self.folders[name]): each.reindex(index=ids, columns=ids) for name, each in found.items()}
        return ModelMaps(maps, tuple(found)) if found else None

    @cached_property
    def curves(self) -> ModelCurves | None:
        """The trade-off curves; None if no model has them."""
        found = self._tables(CURVES)
        return ModelCurves.of(found, self._tables(RATES)) if found else None

    @cached_property
    def methods(self) -> ModelMethods | None:
        """What the methods of notebook 09 found; None if no model has its tables."""
        found, gains = self._tables(METHODS), self._tables(GAINS)
        both = {name: (own, gains.get(name, pd.DataFrame())) for name, own in found.items()}
        return ModelMethods.of(both) if both else None

    def results(self) -> dict[str, tuple[pd.DataFrame, go.Figure]]:
        """The table and the figure of each result, by the name of its files; those that no model has are left out."""
        likeness = self.maps.likeness() if self.maps else None
        found = {
            CLAIMS_FIGURE: self.claims,
            COSINES_FIGURE: self.maps,
            LIKENESS_FIGURE: likeness if likeness is not None and len(likeness.rows) else None,
            TRADEOFF_FIGURE: self.curves,
            METHODS_FIGURE: self.methods,
        }
        return {name: (each.table(), each.figure()) for name, each in found.items() if each is not None}

    def _tables(self, file: str, **options: Any) -> dict[str, pd.DataFrame]:
        paths = {name: folder / file for name, folder in self.folders.items()}
        return {name: pd.read_csv(path, **options) for name, path in paths.items() if path.is_file()}


def open_models(models: Sequence[str | Path] = (), root: str | Path | None = None) -> Models:
    """The runs called `models`: folders of figures, or names of models with a folder below `root` (`figures/` if None).

    Without names, all runs below `root`. Two folders of one name are told apart by how their prompts were selected.
    Raises `ValueError` if a model has no folder, or if there is none at all.
    """
    own = [Path(each) for each in models]
    given = [
        at if _has_tables(at) else figures_of("open_models", str(each), root)
        for each, at in zip(models, own, strict=True)
    ]
    folders = given if models else model_folders(Path(FIGURES if root is None else root))
    todo = "Run the notebooks first, or name folders."
    require(bool(folders), "open_models", "there must be a folder of figures", f"none below {root or FIGURES}", todo)
    return Models(dict(zip(_names(folders), folders, strict=True)))


def compare_models(models: Sequence[str | Path] = (), root: str | Path | None = None) -> list[Path]:
    """The paths of the figures and tables of several models, written to the folder `root` that holds theirs.

    A model without the tables of a figure is left out of it; a figure without any model is not drawn. Raises as
    `open_models` does.
    """
    found, folder = open_models(models, root), Path(root or FIGURES)
    paths: list[Path] = []
    for name, (table, figure) in found.results().items():
        paths += write_figure(figure, folder / name)
        table.round(4).to_csv(folder / f"{name}.csv")
        paths.append(folder / f"{name}.csv")
    return paths


def model_folders(root: Path) -> list[Path]:
    """The folders up to two levels below `root` with a model's tables; the bundled one first, then the least nested."""
    found = {path.parent for depth in ("*", "*/*") for path in root.glob(f"{depth}/{DRAW}")}
    return sorted(found, key=lambda folder: (folder.name != BUNDLED, len(folder.parts), folder.as_posix()))


def model_title(folder: Path) -> str:
    """A model's name, layer and position and, in brackets, what its weights were dequantized from."""
    return _titled(folder.name, folder)


def _titled(name: str, folder: Path) -> str:
    setting = _setting(folder)
    place = (
        f", layer {setting['layer']:.0f}, pos {setting['pos']:.0f}" if pd.notna(setting.get("layer", np.nan)) else ""
    )
    kind = "test organism" if setting.get("kind") == "test organism" else ""
    notes = ", ".join(note for note in (kind, setting.get("weights")) if isinstance(note, str) and note)
    return f"{name}{place}" + (f" ({notes})" if notes else "")


def _names(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: its own or, if two agree, with how the prompts were selected.

    Of those that still agree, the least nested keeps its name, and the others get their parent's.
    """
    shared = {name for name, n in Counter(each.name for each in folders).items() if n > 1}
    chosen = [
        f"{each.name}, by {_setting(each).get('selection')}" if each.name in shared else each.name for each in folders
    ]
    return [
        name if _is_least_nested(each, folders, chosen, name) else f"{name} ({each.parent.name})"
        for name, each in zip(chosen, folders, strict=True)
    ]


def _is_least_nested(folder: Path, folders: Sequence[Path], chosen: Sequence[str], name: str) -> bool:
    """Whether every other folder that is called `name` lies deeper."""
    others = [each for each, own in zip(folders, chosen, strict=True) if own == name and each != folder]
    return all(len(each.parts) > len(folder.parts) for each in others)


def _has_tables(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _TABLES)


def _setting(folder: Path) -> dict[str, Any]:
    path = folder / CLAIMS_FILE
    return pd.read_csv(path).iloc[0].to_dict() if path.is_file() else {}
