"""Several models next to each other: their maps of cosines and their trade-off curves.

Everything is read from the tables that the notebooks wrote, so it works in a checkout where no model was run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..model.names import FIGURES
from ..plotting.pairs import heatmap_panels
from ..plotting.saving import write_figure
from ..plotting.tradeoff import tradeoff_panels
from ..prompts.categories import CATEGORY_IDS
from .claims import CLAIMS_FILE
from .setting import figures_of
from .tables import CITATION, published_cosines

COSINES, RATES, CURVES = "03_cosine_matrix.csv", "07_rates.csv", "07_tradeoff.csv"
COSINES_FIGURE, TRADEOFF_FIGURE = "models_cosines", "models_tradeoff"


def compare_models(models: Sequence[str], root: str | Path | None = None) -> list[Path]:
    """The paths of the figures of several models, written to the folder that holds theirs.

    A model without the tables of a figure is left out of it; a figure without any model is not drawn. Raises
    `ValueError` if a model has no folder.
    """
    folders = [figures_of("compare_models", model, root) for model in models]
    figures = {COSINES_FIGURE: cosine_maps(folders), TRADEOFF_FIGURE: tradeoff_maps(folders)}
    drawn = {name: figure for name, figure in figures.items() if figure is not None}
    return [path for name, figure in drawn.items() for path in write_figure(figure, Path(root or FIGURES) / name)]


def cosine_maps(folders: Sequence[Path]) -> go.Figure | None:
    """The published map of cosines and those of the models, a panel each; None if no model has one."""
    found = {}
    for folder in folders:
        if (folder / COSINES).is_file():
            frame = pd.read_csv(folder / COSINES, index_col=0)
            found[model_title(folder)] = frame.reindex(index=list(CATEGORY_IDS), columns=list(CATEGORY_IDS))
    published = {f"Gemma-2-9b-it, layer 20, pos -2 ({CITATION}, Table 1)": published_cosines()}
    title = "Cosines between the eleven refusal directions, model by model"
    value = "cosine, resid_pre"
    return heatmap_panels(published | found, value=value, title=title, pairwise=True) if found else None


def tradeoff_maps(folders: Sequence[Path]) -> go.Figure | None:
    """The trade-off curves of the models, a panel each; None if no model has them."""
    found = {}
    for folder in folders:
        if (folder / CURVES).is_file() and (folder / RATES).is_file():
            rates = pd.read_csv(folder / RATES)
            steered = rates[rates["intervention"] == "steered"]
            found[model_title(folder)] = pd.read_csv(folder / CURVES), steered
    return tradeoff_panels(found, title="Refusal against over-refusal, model by model") if found else None


def model_title(folder: Path) -> str:
    """A model's name, layer and position and, in brackets, what its weights were dequantized from."""
    setting = _setting(folder)
    place = (
        f", layer {setting['layer']:.0f}, pos {setting['pos']:.0f}" if pd.notna(setting.get("layer", np.nan)) else ""
    )
    kind = "test organism" if setting.get("kind") == "test organism" else ""
    notes = ", ".join(note for note in (kind, setting.get("weights")) if isinstance(note, str) and note)
    return f"{folder.name}{place}" + (f" ({notes})" if notes else "")


def _setting(folder: Path) -> dict[str, Any]:
    path = folder / CLAIMS_FILE
    return pd.read_csv(path).iloc[0].to_dict() if path.is_file() else {}
