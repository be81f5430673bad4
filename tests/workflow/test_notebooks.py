import re

import pytest

from refusal_utils import notebooks
from refusal_utils.notebooks import Title, find_notebooks, parameter_defaults, read_cells, read_title
from refusal_utils.workflow.settings import Settings

EVERY = pytest.mark.parametrize("path", find_notebooks(), ids=lambda path: path.stem)
USES_DRAW = re.compile(r"study\.(draw|held_out|states|sides|activations|directions)\b")


def test_find_notebooks_returns_them_in_order_or_by_number():
    names = [path.name[:2] for path in find_notebooks()]
    assert names == [f"{number:02}" for number in range(1, len(names) + 1)]
    assert [path.name[:2] for path in find_notebooks(["3", "01"])] == ["03", "01"]
    chosen = ["3,01", "03_direction_geometry", "direction_geometry.ipynb", "notebooks/02_cached_activations.ipynb"]
    assert [path.name[:2] for path in find_notebooks(chosen)] == ["03", "01", "02"]
    for wrong in ("77", "", ",", "1,,3"):
        with pytest.raises(ValueError, match="^find_notebooks: the number must be one of 01, 02, 03.*got '"):
            find_notebooks([wrong])


def test_an_installation_without_notebooks_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path)
    with pytest.raises(ValueError, match="^find_notebooks: there must be notebooks; got none in"):
        find_notebooks()


@EVERY
def test_every_title_states_question_needs_and_minutes(path):
    title = read_title(path)
    assert title.question.endswith("?")
    assert "**" not in title.needs + title.takes
    assert "CPU" in title.takes


@EVERY
def test_needs_name_the_files_of_earlier_notebooks_that_the_code_reads(path):
    code = "\n".join("".join(cell["source"]) for cell in read_cells(path) if cell["cell_type"] == "code")
    named = re.findall(r"\b\d\d_\w+(?:\{\w+\})?\.(?:jsonl\.gz|csv|safetensors)", code)
    read = {re.sub(r"\{\w+\}", "<model>", name) for name in named if name[:2] != path.name[:2]}
    if USES_DRAW.search(code) and path.name[:2] != "01":
        read.add("01_draw.csv")
    inputs = read_title(path).inputs
    assert read <= set(inputs)
    assert all(name[:2] < path.name[:2] for name in inputs)


def test_inputs_are_the_files_named_under_needs():
    needs = "`01_draw.csv`, `07_sweep_<model>.jsonl.gz` of notebook 07, and `figures/`; not 02_norms.csv"
    assert Title("", needs, "").inputs == ["01_draw.csv", "07_sweep_<model>.jsonl.gz"]


def test_a_title_without_needs_is_refused(notebook):
    path = notebook("01_a.ipynb")
    assert read_title(path).question == "Why?"
    path.write_text(path.read_text().replace("**Needs**", "Needs"))
    with pytest.raises(ValueError, match="^read_title: the title cell must state .*got none in 01_a.ipynb"):
        read_title(path)


@EVERY
def test_parameters_have_the_names_and_defaults_of_the_settings(path):
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    own = parameter_defaults(path)
    assert own == {name: defaults.get(name, "no such setting") for name in own}


def test_every_setting_but_the_size_is_a_parameter_of_some_notebook():
    assert set(Settings.model_fields) - {"SIZE"} == {
        name for path in find_notebooks() for name in parameter_defaults(path)
    }
