import nbformat
import pytest

from refusal_utils import runner
from refusal_utils.__main__ import main
from refusal_utils.runner import NotebookFailure, find_notebooks, parameter_names, run_notebook


@pytest.fixture
def notebook(tmp_path):
    def write(name: str, body: str):
        cells = [
            nbformat.v4.new_code_cell('MODEL = "bundled"  #@param\nN = 1', metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell(body),
        ]
        path = tmp_path / "notebooks" / name
        path.parent.mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}}), path)
        return path

    return write


def test_find_notebooks_gives_them_in_order_or_by_number():
    names = [path.name[:2] for path in find_notebooks()]
    assert names == sorted(names)
    assert names[:3] == ["01", "02", "03"]
    assert [path.name[:2] for path in find_notebooks(["3", "01"])] == ["03", "01"]
    with pytest.raises(ValueError, match="find_notebooks: the number must be one of 01, 02, 03.*got '77'"):
        find_notebooks(["77"])


def test_run_notebook_passes_parameters_and_writes_the_executed_copy(notebook, tmp_path):
    path = notebook("01_a.ipynb", "print('got', N)")
    assert parameter_names(path) == {"MODEL", "N"}
    assert run_notebook(path, tmp_path / "out", {"N": 5}) < 1
    assert "got 5" in (tmp_path / "out" / "01_a.ipynb").read_text()
    assert "got 5" not in path.read_text()


def test_run_notebook_refuses_an_unknown_parameter(notebook, tmp_path):
    with pytest.raises(ValueError, match="run_notebook: parameters must be among MODEL, N; got MODLE"):
        run_notebook(notebook("01_a.ipynb", "pass"), tmp_path / "out", {"MODLE": "x"})


def test_a_failing_cell_is_named_with_its_source_and_error(notebook, tmp_path):
    with pytest.raises(
        NotebookFailure, match=r"01_a.ipynb failed in cell \d+:\n    assert N == 2, 'no'\nAssertionError: no"
    ):
        run_notebook(notebook("01_a.ipynb", "assert N == 2, 'no'"), tmp_path / "out", {})


def test_run_prints_a_line_a_notebook_and_stops_at_the_first_failure(notebook, tmp_path, monkeypatch, capsys):
    notebook("01_good.ipynb", "pass")
    notebook("02_bad.ipynb", "1 / 0")
    notebook("03_never.ipynb", "pass")
    monkeypatch.setattr(runner, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(runner, "FIGURES", tmp_path / "figures")
    assert main(["run"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split()[0] == "01_good"
    assert out.splitlines()[0].endswith("min")
    assert "03_never" not in out
    assert "02_bad.ipynb failed in cell" in err
    assert "ZeroDivisionError" in err
    assert main(["run", "--notebooks", "9"]) == 1
    assert "the number must be one of" in capsys.readouterr().err
