"""The places that other papers published for methods that choose one, matched with those of notebook 09."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from .matches import Match
from .setting import Setting

FILE = "09_selections.csv"
QUANTITIES = ("depth", "pos", "bypass", "induce", "kl")
PUBLISHED = Path(__file__).parent / "data" / "selected_places.csv"
# What the papers' prompts were; no prompts of ours are these.
PROMPTS = {
    "2406.11717 Table 5": "AdvBench, MaliciousInstruct, TDC2023, HarmBench and Alpaca",
    "2506.00085 Table 2": "those of COSMIC",
}


def selection_matches(folder: Path, setting: Setting) -> Iterator[Match]:
    """A match per published number: depth (layer / number of layers), position, and scores if they were printed."""
    ours = pd.read_csv(folder / FILE, index_col=0) if (folder / FILE).is_file() else pd.DataFrame()
    for row in pd.read_csv(PUBLISHED).assign(depth=lambda rows: rows["layer"] / rows["n_layers"]).to_dict("records"):
        published = replace(setting, model=row["model"], prompts=PROMPTS[row["table"]], direction_draw=None)
        for quantity in QUANTITIES:
            if pd.isna(row[quantity]):
                continue
            known = row["method"] in ours.index and quantity in ours
            mine = (float(ours.loc[row["method"], quantity]),) * 3 if known else None
            theirs = (float(row[quantity]),) * 3
            about = f"{row['method']}, {row['model']}"
            yield Match(row["table"], quantity, about, "", theirs, published, FILE, mine)
