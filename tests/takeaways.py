"""The numbers in the takeaways of notebooks, and the tables that hold them."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from refusal_utils.methods import METHODS
from refusal_utils.prompts.categories import CATEGORY_IDS, category_by_id

from .readings import NUMBER, value

Tables = Callable[[str], pd.DataFrame]


def _own_cells(table: pd.DataFrame) -> pd.Series:
    """The cells of a table of directions (column direction) where a direction meets its own category."""
    square = table.set_index("direction")
    return pd.Series([square.loc[name, name] for name in square.index])


def _change_of_score(tables: Tables, *, own: bool) -> pd.DataFrame:
    """The rows of ablated directions of a language, on prompts of the same or of another one."""
    rows = tables("10_cross_language").query("kind == 'ablated' and of == 'score' and direction != 'random'")
    return rows[(rows["direction"] == rows["prompts"]) == own]


def _pushes(tables: Tables) -> pd.DataFrame:
    rows = tables("10_suffix_regression").query("model == 'joint' and predictor == 'push'")
    return rows[rows["direction"].isin(CATEGORY_IDS)]


def _lowered(tables: Tables, group: str) -> int:
    rows = tables("13_one_by_one")
    own = rows["condition"].isin(tables("13_audit")["category"]) & (rows["group"] == group)
    return int((rows.loc[own, "change high"] < 0).sum())


def _norm_of_benign(tables: Tables) -> float:
    norms = tables("02_norms").query("layer == 6").set_index("category")["norm"]
    return norms["benign"] - norms.drop("benign").mean()


def _fall(tables: Tables, replaced: str) -> pd.Series:
    shares = tables("06_replacement")
    return shares[replaced] - shares["nothing replaced"]


def _top_head(tables: Tables) -> float:
    top = tables("06_effects").nlargest(1, "attribution").iloc[0]
    return float(f"{top['layer']}.{top['head']}")


# Numbers that a table gives only after a step: notebook -> what it is -> how it is read off the tables.
DERIVED: Mapping[str, Mapping[str, Callable[[Tables], float]]] = {
    "02": {"prompts": lambda t: len(t("01_draw")), "norm of benign prompts": _norm_of_benign},
    "03": {
        "directions": lambda t: len(t("03_dendrogram")),
        "pairs": lambda t: len(t("03_intervals")),
        "intervals below 0.95": lambda t: (t("03_intervals")["high"] < 0.95).sum(),
        "the margin of distinct pairs": lambda t: 0.95,
        "intervals above 0": lambda t: (t("03_intervals")["low"] > 0).sum(),
        "related pairs": lambda t: (t("03_intervals")["p related"] < 0.05).sum(),
    },
    "04": {"pairs": lambda t: len(t("03_intervals"))},
    "06": {
        "heads": lambda t: t("06_effects").groupby(["layer", "head"]).ngroups,
        "the head that contributes most": _top_head,
        "fall of refusals, top heads": lambda t: _fall(t, "ablate top").mean(),
        "fall of refusals, random heads": lambda t: _fall(t, "ablate random").mean(),
        "largest fall of a category": lambda t: _fall(t, "ablate top").min(),
        "smallest fall of a category": lambda t: _fall(t, "ablate top").max(),
    },
    "07": {"pairs": lambda t: len(t("03_intervals"))},
    "08": {"directions": lambda t: t("08_styles")["direction"].nunique()},
    "09": {
        "methods but one": lambda t: len(set(t("09_equal_cost")["name"]) & set(METHODS)) - 1,
        "change of the own category": lambda t: _own_cells(t("09_cross_ablation")).mean(),
        "clusters": lambda t: len({category_by_id(name).cluster for name in t("09_cross_ablation")["direction"]}),
    },
    "10": {
        "responses": lambda t: t("10_outcomes")[["refused", "answered", "broken", "not judged"]].sum().sum(),
        "change in the own language": lambda t: _change_of_score(t, own=True)["change"].mean(),
        "change in other languages": lambda t: _change_of_score(t, own=False)["change"].mean(),
        "pairs of languages": lambda t: len(_change_of_score(t, own=False)),
        "falls in other languages": lambda t: (_change_of_score(t, own=False)["high"] < 0).sum(),
        "directions": lambda t: len(_pushes(t)),
        "directions that push lowers": lambda t: (_pushes(t)["high"] < 0).sum(),
    },
    "11": {"in the best span": lambda t: t("11_inside").query("direction in @CATEGORY_IDS")["best span"].mean()},
    "13": {
        "directions": lambda t: len(t("13_audit")),
        "lowered off topic": lambda t: _lowered(t, "off topic"),
        "lowered on topic": lambda t: _lowered(t, "on topic"),
    },
}


def missing_numbers(takeaways: str, notebook: str, folder: Path) -> list[str]:
    """The stated numbers that no table of the notebook in `folder` holds so rounded, nor gives by `DERIVED`."""
    tables: Tables = cache(lambda name: pd.read_csv(folder / f"{name}.csv"))
    own = [tables(path.stem) for path in sorted(folder.glob(f"{notebook[:2]}_*.csv"))]
    held = np.concatenate([_numbers(table) for table in own] or [np.empty(0)])
    held = np.append(held, [float(read(tables)) for read in DERIVED.get(notebook[:2], {}).values()])
    stated = re.findall(NUMBER + r"(?: ?%)?", re.sub(r"`[^`]*`|95 %", "", takeaways))  # 95 %: of every interval
    return [number for number in stated if not _is_held(number, held)]


def _numbers(table: pd.DataFrame) -> np.ndarray:
    """The numbers in the cells of a table, in its headings, and in short texts such as "0.01 to 0.05"."""
    numeric = table.select_dtypes("number")
    texts = [str(name) for name in table] + [
        text for name in table.columns.difference(numeric.columns) for text in table[name].dropna().astype(str).unique()
    ]
    found = [value(number) for text in texts if len(text) < 40 for number in re.findall(NUMBER, text)]
    return np.append(numeric.to_numpy(float).ravel(), found)


def _is_held(stated: str, held: np.ndarray) -> bool:
    """Whether one of the numbers rounds to the stated one, give or take the rounding of the table itself."""
    number, decimals = value(stated.rstrip(" %")), len(stated.rstrip(" %").partition(".")[2])
    candidates = 100 * held if "%" in stated else held
    if not decimals and "%" not in stated:
        return bool((held == number).any())
    return bool((np.abs(candidates - number) <= 0.5001 * 10**-decimals + 1e-4 * abs(number)).any())
