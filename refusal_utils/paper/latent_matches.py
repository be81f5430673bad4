"""The published numbers about sparse-autoencoder latents, matched with those of notebook 14.

Tables 3, 4, 5 and 14 are the paper's. Its Tables 16 to 19 count the latents that two lists share; here these counts are
those that the authors' release prints, whose lists of 1,000 are filled up with latents that do not fire.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from ..prompts.categories import CATEGORY_IDS, category_by_id
from ..stats import wilson
from .matches import RATE_NAMES, Estimate, Match, find_row, join_reasons, other_judge, read_ours, spread
from .setting import GEMMA, LLAMA, Setting
from .tables import published_overlaps, published_table

QUALITY, ALIGNMENT, OVERLAP = "14_quality.csv", "14_alignment.csv", "14_overlap.csv"
PAIRS, STEERING = "14_pairs.csv", "14_steering.csv"
RELEASED = "release, latents in two lists"
TABLES = ("3", "4", "5", "14", RELEASED)
LAYERS, N_LATENTS, N_LISTED = (9, 20, 31), 16_384, 1000  # of the paper's autoencoders of Gemma, and of its lists
FILLED = "theirs filled up with latents that do not fire"
# The columns that each file must have.
NEEDED = {
    QUALITY: ("layer", "latents"),
    ALIGNMENT: ("category", "mean", "std"),
    OVERLAP: ("lists", "k", "found"),
    PAIRS: ("category", "listed", "unique"),  # and one for each category that was drawn
    STEERING: ("name", "nats", *(f"{rate}{end}" for rate in RATE_NAMES for end in ("", " low", " high")), "judge"),
}


@dataclass(frozen=True)
class _Ours:
    """Our files, and what autoencoder and lists they are of."""

    folder: Path
    setting: Setting

    def read(self, file: str) -> pd.DataFrame:
        return read_ours(self.folder, file, NEEDED[file])

    def apart(self, layer: int, n_listed: int | None = N_LISTED) -> str:
        """Why our autoencoder and lists are not those of the paper at the output of `layer`; empty if they are."""
        quality, listed = self.read(QUALITY), self.read(PAIRS)["listed"].max()
        found = [(int(row.layer), int(row.latents)) for row in quality.itertuples()]
        parts = [
            f"{n} latents of the output of layer {own}, theirs {N_LATENTS} of layer {layer}"
            for own, n in found
            if (own, n) != (layer, N_LATENTS)
        ]
        if n_listed not in (None, listed):
            parts.append(f"lists of {listed:.0f}, theirs of {n_listed}")
        return join_reasons(*parts)

    def place(self, published: Setting) -> Setting:
        """The published setting at our layer: places are compared by the autoencoder's layer alone."""
        return replace(published, layers=self.setting.layers)


def latent_matches(folder: Path, setting: Setting) -> Iterator[Match]:
    """One match per published number about latents. Raises `ValueError` if a file of ours lacks a column."""
    ours = _Ours(folder, setting)
    yield from _steering(ours)
    yield from _alignment(ours)
    yield from _shares(ours)
    yield from _pairs(ours)


def _steering(ours: _Ours) -> Iterator[Match]:
    """Tables 3 and 14: rates under the mean decoder row of a category's latents, theirs at fixed strengths."""
    tables = [published_table(3).assign(table="3"), published_table(14).assign(table="14", model=GEMMA.model)]
    steering = ours.read(STEERING)
    for row in pd.concat(tables).to_dict("records"):
        published = GEMMA if row["model"] == GEMMA.model else LLAMA
        mine = find_row(steering, name=row["category"])
        apart = f"ours at a cost of {mine['nats']:.2f} nats, theirs at beta {row['beta']:g}" if mine else ""
        condition = f"{row['model']}, mean row of the latents, beta {row['beta']:g}"
        for rate, (column, n) in RATE_NAMES.items():
            value = (mine[rate], mine[f"{rate} low"], mine[f"{rate} high"]) if mine else None
            theirs = (row[column], *wilson(round(row[column] * n), n))
            about, caveat = category_by_id(row["category"]).title, other_judge(mine) if mine else ""
            place = ours.place(published)
            yield Match(row["table"], rate, about, condition, theirs, place, STEERING, value, apart, caveat)


def _alignment(ours: _Ours) -> Iterator[Match]:
    """Table 4: by prompt, the cosine of what a category's latents write with its direction."""
    found, apart = ours.read(ALIGNMENT), ours.apart(20, None)
    for row in published_table(4).to_dict("records"):
        mine = find_row(found, category=row["category"])
        value = spread(mine["mean"], mine["std"]) if mine else None
        theirs, about = spread(row["cosine_mean"], row["cosine_std"]), category_by_id(row["category"]).title
        yield Match(
            *("4", "cosine of what the latents write", about, "", theirs, ours.place(GEMMA), ALIGNMENT, value),
            apart if mine else "",
            "the length of their lists is not published",
        )


def _shares(ours: _Ours) -> Iterator[Match]:
    """Table 5: latents in at least one list and in all, as shares of all latents.

    Ours are of the lists that are nearest to theirs in length, as a share of the latents.
    """
    quality, found = ours.read(QUALITY), ours.read(OVERLAP)
    n = int(quality["latents"].iloc[0]) if len(quality) else N_LATENTS
    k = found.loc[(found["k"] / n - N_LISTED / N_LATENTS).abs().idxmin(), "k"] if len(found) else 0
    for row in published_table(5).to_dict("records"):
        apart = join_reasons(ours.apart(row["layer"], None), f"lists of {k}, theirs of {N_LISTED}", FILLED)
        for quantity, column, lists in (
            ("latents in any list", "share_in_any_list", 1),
            ("latents in all lists", "share_in_all_lists", len(CATEGORY_IDS)),
        ):
            mine = find_row(found, lists=lists, k=k)
            value: Estimate | None = (mine["found"] / n,) * 3 if mine else None
            theirs, place, condition = (row[column],) * 3, ours.place(GEMMA), f"layer {row['layer']}"
            yield Match(
                "5", quantity, "all categories", condition, theirs, place, OVERLAP, value, apart if mine else ""
            )


def _pairs(ours: _Ours) -> Iterator[Match]:
    """The release's counts for Tables 16 to 19: what two lists share, and what is in one list alone."""
    found = ours.read(PAIRS)
    for layer in LAYERS:
        published, apart = published_overlaps(layer), join_reasons(ours.apart(layer), FILLED)
        cells = [(*pair, f"{pair[1]}", "share of a list in another one") for pair in combinations(CATEGORY_IDS, 2)]
        cells += [(name, "", "unique", "share of a list in no other one") for name in CATEGORY_IDS]
        for name, other, column, quantity in cells:
            mine = find_row(found, category=name) if column in found else None
            own = (
                None if not mine else mine[column] / (mine["listed"] or np.nan) if column == "unique" else mine[column]
            )
            about = " / ".join(category_by_id(each).title for each in (name, other) if each)
            value, theirs = (
                None if own is None or np.isnan(own) else (own,) * 3,
                (published.loc[name, column] / N_LISTED,) * 3,
            )
            why, condition = apart if value else "", f"layer {layer}"
            yield Match(RELEASED, quantity, about, condition, theirs, ours.place(GEMMA), PAIRS, value, why)
