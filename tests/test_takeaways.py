"""Every number in a takeaway is in a table of its notebook, at the stated rounding."""

import json
from pathlib import Path

import pandas as pd
import pytest

from refusal_utils.notebooks import find_notebooks

from .takeaways import missing_numbers

FOLDER = Path(__file__).parents[1] / "figures" / "bundled"
TAKEAWAYS = {name: each["takeaways"] for name, each in json.loads((FOLDER / "takeaways.json").read_text()).items()}


def test_every_notebook_has_committed_takeaways():
    assert set(TAKEAWAYS) == {path.stem for path in find_notebooks() if path.stem != "explorer"}


@pytest.mark.parametrize("notebook", TAKEAWAYS)
def test_every_number_of_the_committed_takeaways_is_in_a_committed_table(notebook):
    assert missing_numbers(TAKEAWAYS[notebook], notebook, FOLDER) == []


def test_numbers_are_looked_for_at_their_rounding_and_names_of_files_are_no_numbers(tmp_path):
    table = pd.DataFrame({"share": [0.12345, -3.0], "interval": ["0.01 to 0.05", "none"], "alpha 7": [2, 1500]})
    table.to_csv(tmp_path / "99_table.csv")
    text = "- 0.123, 12.3%, 12%, 0.05, 1,500, 7 and 2 (`99_table`, 95 %); not 0.13, 13%, 8, 0.1, 1.5, +0.03"
    assert missing_numbers(text, "99_notebook", tmp_path) == ["0.13", "13%", "8", "1.5", "0.03"]
