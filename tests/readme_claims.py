"""Writes the README's table of claims from the committed `claims.csv` of all models: `python -m tests.readme_claims`."""

import re
from pathlib import Path

from refusal_utils.model.chat_model import BUNDLED
from refusal_utils.paper.models import claims_markdown

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"(<!-- claims: .*? -->\n)(.*?)(<!-- end of claims -->)", re.S)


def table() -> str:
    """The table of all runs with a `claims.csv`, also by behaviour, the bundled model last."""
    folders = [path.parent for path in (ROOT / "figures").glob("**/claims.csv")]
    return claims_markdown(sorted(folders, key=lambda folder: (folder.name == BUNDLED, folder.name.lower())))


def written() -> str:
    """The table that the README has."""
    return BLOCK.search(README.read_text(encoding="utf-8"))[2]


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    README.write_text(BLOCK.sub(lambda found: found[1] + table() + found[3], text), encoding="utf-8")
