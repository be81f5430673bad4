"""Writes the README's table of claims from all models' `claims.csv`: `python -m tests.readme_claims`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from refusal_utils.model.chat_model import BUNDLED
from refusal_utils.paper.claims import CLAIMS, CLAIMS_FILE, describe_setting
from refusal_utils.paper.measures import COUNTED

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"(<!-- claims: .*? -->\n)(.*?)(<!-- end of claims -->)", re.S)


def table() -> str:
    """The table of all runs with a `claims.csv`, also by behaviour, the bundled model last."""
    folders = [path.parent for path in (ROOT / "figures").glob("**/claims.csv")]
    order = {each: (each.name == BUNDLED, each.name.lower(), len(each.parts), each.as_posix()) for each in folders}
    return claims_markdown(sorted(order, key=order.__getitem__))


def claims_markdown(folders: Sequence[Path]) -> str:
    """The claims of every model that has `claims.csv`, as a Markdown table: a row per model, a column per claim."""
    head = ["model and setting", *(f"{number}. {text}" for number, text in CLAIMS.items())]
    lines = [
        head,
        ["---"] * len(head),
        *(_markdown_row(folder) for folder in folders if (folder / CLAIMS_FILE).is_file()),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _markdown_row(folder: Path) -> list[str]:
    rows = pd.read_csv(folder / CLAIMS_FILE)
    setting = rows.iloc[0].to_dict()
    cells = [f"**{folder.name}**: {describe_setting(setting)}"]
    for number in CLAIMS:
        own = rows[rows["claim"] == number]
        parts = [f"{_value(row)} {row.measure}{_doubt(row)}" for row in own.itertuples()]
        cells.append(f"**{own['claim verdict'].iloc[0]}**: " + "; ".join(parts))
    return cells


def _value(row: Any) -> str:
    """A measure's number and range: counts as counts of n, the rest with two decimals."""
    if pd.isna(row.number):
        return "no number:"
    if row.unit in COUNTED:
        return f"{row.number:.0f} of {row.n:.0f} ({row.low:.0f} to {row.high:.0f})"
    return f"{row.number:.2f} ({row.low:.2f} to {row.high:.2f}, n = {row.n:.0f})"


def _doubt(row: Any) -> str:
    return f" [{row.doubt}]" if isinstance(row.doubt, str) and row.doubt else ""


def written() -> str:
    """The table that the README has."""
    return BLOCK.search(README.read_text(encoding="utf-8"))[2]


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    README.write_text(BLOCK.sub(lambda found: found[1] + table() + found[3], text), encoding="utf-8")
