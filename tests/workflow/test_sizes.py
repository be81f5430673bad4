import re
from pathlib import Path

import pytest

from refusal_utils.workflow.command_line import main
from refusal_utils.workflow.settings import Settings
from refusal_utils.workflow.sizes import SIZES, size_values

DOCS = Path(__file__).parents[2] / "docs" / "sizes.md"


def test_standard_has_the_defaults():
    assert {name: row.standard for name, row in SIZES.items()} == {
        name: Settings.model_fields[name].default for name in SIZES
    }
    assert size_values("standard") == {}
    assert Settings().sized == {}


@pytest.mark.parametrize("size", ["quick", "full"])
def test_every_value_of_a_size_is_valid(size):
    assert Settings(SIZE=size).sized == size_values(size) == Settings(**size_values(size)).given


def test_quick_measures_less_than_standard_and_full_no_less():
    numbers = [row for row in SIZES.values() if isinstance(row.standard, int)]
    assert len(numbers) > 8
    assert all(row.quick < row.standard <= row.full for row in numbers)


def test_the_docs_show_the_table_of_the_code():
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|", DOCS.read_text(), re.M)
    shown = {name: tuple(each.strip() for each in values) for name, *values in rows}
    assert shown == {name: tuple(map(str, row)) for name, row in SIZES.items()}


def test_a_size_reaches_the_notebooks_and_what_is_given_wins(notebook, instant, monkeypatch):
    notebook("01_a.ipynb", "pass", 'MODEL = "bundled"\nN_DRAWS = 500\nN_TWINS = 16')
    quick = {"N_DRAWS": SIZES["N_DRAWS"].quick, "N_TWINS": SIZES["N_TWINS"].quick}
    assert main(["run", "--size", "quick"]) == 0
    assert main(["run", "--size", "quick"]) == 0  # finished
    assert main(["run"]) == 0  # another run: its digest differs
    assert main(["run", "--size", "standard"]) == 0  # the same run
    monkeypatch.setenv("REFUSAL_SIZE", "quick")
    assert main(["run", "--set", "N_TWINS=3"]) == 0
    expected = [quick, {}, quick | {"N_TWINS": 3}]
    assert instant == [("01", {"MODEL": "bundled", **values}) for values in expected]


def test_an_unknown_size_is_refused(capsys):
    assert main(["run", "--size", "tiny"]) == 1
    assert "read_settings: SIZE: " in capsys.readouterr().err
