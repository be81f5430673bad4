"""The tables of arXiv 2602.02132 v1 as data frames, and further numbers from the authors' release."""

import json
from pathlib import Path

import pandas as pd

from ..checks import require_known
from ..prompts.categories import BENIGN, CATEGORIES, CATEGORY_IDS

GEMMA, LLAMA = "gemma-2-9b-it", "llama-3.1-8b-instruct"  # as Table 2 names them
CITATION = "Joad et al., arXiv 2602.02132"
_DATA = Path(__file__).parent / "data"
# The source of each category, as Tables 7 and 8 name it.
TABLE7_SOURCE = {
    "safety_core": "WildGuard-Mix (all)",
    "hate_speech": "SorryBench (Hate speech)",
    "crime_assistance": "SorryBench (Crimes / torts)",
    "inappropriate": "SorryBench (Inappropriate topics)",
    "advice": "SorryBench (Unqualified advice)",
    "safety_concerns": "CoCoNot (Requests with safety concerns)",
    "over_refusal": "XSTest (all)",
    "incomplete": "CoCoNot (Incomplete requests)",
    "unsupported": "CoCoNot (Unsupported requests)",
    "indeterminate": "CoCoNot (Indeterminate requests)",
    "humanizing": "CoCoNot (Humanizing requests)",
}
# Our categories and sources, by their names in the release.
_POOLS = {
    "WildGuard_all": "safety_core",
    "SorryBench_HateSpeech": "hate_speech",
    "SorryBench_CrimesTorts": "crime_assistance",
    "SorryBench_Inappropriate": "inappropriate",
    "SorryBench_Advice": "advice",
    "CocoNot_Safety": "safety_concerns",
    "XSTest_all": "over_refusal",
    "CocoNot_Incomplete": "incomplete",
    "CocoNot_Unsupported": "unsupported",
    "CocoNot_Indeterminate": "indeterminate",
    "CocoNot_Humanizing": "humanizing",
    "_BC_shared32": BENIGN,
}
_BY_SPLIT = {category.paper_split: category.id for category in CATEGORIES}
_SOURCES = {"wildguardmix": "wildguard", "sorrybench_qid": "sorrybench", "coconot": "coconot", "xstest": "xstest"}


def published_table(number: str | int) -> pd.DataFrame:
    """The paper's table with this number (`"D"`: Appendix D), as printed.

    If the table has a column `split`, a column `category` with our ids is added. Raises `ValueError` for a table that
    is not included.
    """
    files = {file.stem.split("_")[0].removeprefix("table"): file for file in sorted(_DATA.glob("table*.csv"))}
    require_known("published_table", "the table", str(number), files, "Table 1 is published_cosines().")
    frame = pd.read_csv(files[str(number)])
    if "split" in frame:
        frame.insert(1, "category", frame["split"].map(_BY_SPLIT))
    return frame


def published_overlaps(layer: int) -> pd.DataFrame:
    """By category: how many of its 1,000 latents are in the list of each category, and in no other (column `unique`).

    Gemma-2-9b-it with the 16,384 latents of Gemma Scope at the output of `layer`, as the authors' release prints them
    for Tables 16 to 19. Raises `ValueError` for a layer that is not included.
    """
    table = pd.read_csv(_DATA / "release_latent_overlap.csv")
    require_known("published_overlaps", "the layer", str(layer), sorted({*map(str, table["layer"])}))
    own = table[table["layer"] == layer].drop(columns="layer").set_index("split").rename(index=_BY_SPLIT)
    return own.rename(columns=_BY_SPLIT).loc[list(CATEGORY_IDS), [*CATEGORY_IDS, "unique"]].rename_axis("category")


def published_cosines() -> pd.DataFrame:
    """Table 1: the cosines of Gemma-2-9b-it at layer 20, position -2.

    Rows and columns are the paper's categories, in our order.
    """
    table = json.loads((_DATA / "table1_cosine.json").read_text())
    ids = [_BY_SPLIT[split] for split in table["order"]]
    known = [name for name in CATEGORY_IDS if name in ids]
    return pd.DataFrame(table["cosine"], index=ids, columns=ids).loc[known, known]


def published_manifest() -> dict:
    """Model, layer, position and raw projection gaps of the released Gemma directions."""
    return json.loads((_DATA / "gemma_direction_manifests.json").read_text())


def published_steering() -> pd.DataFrame:
    """Table 2 by (intervention, direction), with columns `<model> accuracy`, `<model> RR` and `<model> ORR`."""
    names = {"accuracy": "accuracy", "refusal_rate": "RR", "over_refusal_rate": "ORR"}
    table = published_table(2).set_index(["intervention", "category"]).rename_axis(["intervention", "direction"])
    sides = [table.loc[table["model"] == model, list(names)].rename(columns=names) for model in (GEMMA, LLAMA)]
    return pd.concat([side.add_prefix(f"{model} ") for side, model in zip(sides, (GEMMA, LLAMA), strict=True)], axis=1)


def published_gaps() -> pd.Series:
    """By category: the distance between the two sides' means along Gemma's released direction."""
    rows = published_manifest()["rows"]
    gaps = {category: rows[split]["gap"] for split, category in _POOLS.items() if category != BENIGN}
    return pd.Series(gaps, name="gap")


def published_alphas(model_name: str) -> list[float]:
    """The raw strengths above 0 at which the paper steered this model (Tables 11 and 12); empty for any other model.

    The model is recognised by the last part of its hub id or folder, in any case. The strengths carry over only to the
    paper's layer.

    >>> published_alphas("google/gemma-2-9b-it")
    [10.0, 30.0, 60.0, 100.0]
    """
    table = {GEMMA: 12, LLAMA: 11}.get(plain_name(model_name))
    return [] if table is None else sorted({float(alpha) for alpha in published_table(table)["alpha"] if alpha > 0})


def plain_name(model_name: str) -> str:
    """The last part of a hub id or folder, as the tables write it: in lower case, without Llama's former `Meta-`.

    >>> plain_name("meta-llama/Meta-Llama-3.1-8B-Instruct")
    'llama-3.1-8b-instruct'
    """
    return Path(model_name).name.lower().removeprefix("meta-")


def published_pool_sizes() -> pd.Series:
    """Table 7 by category: prompts per source that remain after filtering by the model's own behaviour."""
    counts = published_table(7).set_index("source")["n_prompts"]
    return pd.Series({category: int(counts[source]) for category, source in TABLE7_SOURCE.items()}, name="n_prompts")


def published_stability() -> pd.DataFrame:
    """Table 8 by category: `mean` and `std` of the cosine between directions from different draws of its prompts."""
    table = published_table(8)
    table.index = table.pop("category").map(folded)
    return table.loc[[folded(source) for source in TABLE7_SOURCE.values()]].set_axis(list(TABLE7_SOURCE))


def folded(source: str) -> str:
    """A source's name as both Table 7 ("Crimes / torts") and Table 8 ("crimes/torts") have it."""
    return source.lower().replace(" ", "")


def published_pool_rows() -> pd.DataFrame:
    """The rows of the public data sets behind the released Gemma directions: 32 of every category, and 32 benign.

    Columns: category, source, source_index (as in `public_datasets`), and available, the number of prompts that
    qualified. The rows are the first 32 in source order that the model refused (or, if benign, answered) according to
    WildGuard.
    """
    pools = json.loads((_DATA / "gemma_per_split_pool_indices.json").read_text())
    rows = [
        (category, _SOURCES[pools[name]["source"]], index, pools[name]["available_after_filter"])
        for name, category in _POOLS.items()
        for index in pools[name]["idx"]
    ]
    return pd.DataFrame(rows, columns=["category", "source", "source_index", "available"])
