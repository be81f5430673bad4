import nbformat
import pytest

from refusal_utils import notebooks
from refusal_utils.workflow import runner

PARAMETERS = 'MODEL = "bundled"  # @param\nN_DRAWS = 1\nFIGURES_DIR = "../figures"\nCACHE_DIR = "../cache"'


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """Writes notebooks of one cell into a suite of their own, whose project folder is `tmp_path`."""
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(runner, "FIGURES", tmp_path / "figures")

    def write(name: str, body: str = "pass", parameters: str = PARAMETERS, needs: str = "nothing"):
        cells = [
            nbformat.v4.new_markdown_cell(f"# T\n\n**Question.** Why?\n\n**Needs** {needs}. **Takes** a second."),
            nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell(body),
        ]
        for number, cell in enumerate(cells):
            cell["id"] = f"cell-{number}"
        kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
        path = tmp_path / "notebooks" / name
        path.parent.mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
        return path

    return write


@pytest.fixture
def instant(monkeypatch):
    """Executes no notebook: copies it to where the executed copy would go, and lists (number, parameters) of each.

    One at a time, so that the order is known. Models and prompts need not exist.
    """
    asked = []

    def copy(path, out, parameters, kernels=None):
        asked.append((path.name[:2], parameters))
        out.mkdir(parents=True, exist_ok=True)
        (out / path.name).write_text(path.read_text())
        return 0.0

    monkeypatch.setattr(runner, "run_notebook", copy)
    monkeypatch.setattr(runner, "usual_jobs", lambda model: 1)
    monkeypatch.setattr(runner, "_require_sources", lambda settings: None)
    return asked
