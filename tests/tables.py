"""How the tables of two runs differ: bytes, texts and numbers."""

from pathlib import Path

import numpy as np
import pandas as pd


def differences(one: Path, other: Path) -> pd.DataFrame:
    """A row per CSV file of either folder, with columns same, texts and numbers.

    same: whether the bytes are. texts: the share of cells with different texts. numbers: the largest difference between
    two numbers, as a share of the largest number of their column; columns of seconds do not count. Tables of different
    shape have 1 in both; a table that one folder lacks, too.
    """
    names = sorted({path.name for folder in (one, other) for path in folder.glob("*.csv")})
    rows = {name: _difference(one / name, other / name) for name in names}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["same", "texts", "numbers"])


def _difference(one: Path, other: Path) -> tuple[bool, float, float]:
    if not (one.is_file() and other.is_file()):
        return False, 1.0, 1.0
    if one.read_bytes() == other.read_bytes():
        return True, 0.0, 0.0
    read = (pd.read_csv(path, keep_default_na=False, na_values=[""]) for path in (one, other))
    first, second = (table.drop(columns="seconds", errors="ignore") for table in read)
    if first.shape != second.shape or list(first) != list(second):
        return False, 1.0, 1.0
    numeric = [name for name in first if all(pd.api.types.is_numeric_dtype(each[name]) for each in (first, second))]
    texts = [name for name in first if name not in numeric]
    apart = first[texts].astype(str) != second[texts].astype(str)
    a, b = first[numeric].to_numpy(float), second[numeric].to_numpy(float)
    if (np.isnan(a) != np.isnan(b)).any():
        return False, float(apart.to_numpy().mean()) if texts else 0.0, 1.0
    scale = np.maximum(np.nanmax(np.abs(a), axis=0, initial=0), 1e-12)
    return False, float(apart.to_numpy().mean()) if texts else 0.0, float(np.nanmax(np.abs(a - b) / scale, initial=0))
