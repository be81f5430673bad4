"""The form of the notebooks, read from their files: sizes, the shared head, sections, checks and takeaways."""

import ast
import json
import re
import statistics
from pathlib import Path

import pytest

from refusal_utils.notebooks import NOTEBOOKS, find_notebooks

from .readings import bold_numbers, is_printed, printed_numbers, readings

ROOT = Path(__file__).parent.parent
EVERY = pytest.mark.parametrize("path", find_notebooks(), ids=lambda path: path.stem)
EXPLORER, MANY = NOTEBOOKS / "explorer.ipynb", NOTEBOOKS / "many_models.ipynb"  # not numbered, so not run by `run`
ALSO_EXPLORER = pytest.mark.parametrize("path", [*find_notebooks(), EXPLORER], ids=lambda path: path.stem)
ALSO_UNNUMBERED = pytest.mark.parametrize("path", [*find_notebooks(), EXPLORER, MANY], ids=lambda path: path.stem)
REPOSITORY = "refusal-geometry/refusal-geometry"
INSTALL = f"""if "google.colab" in str(get_ipython()):
    %pip install -q "refusal-utils[notebooks] @ git+https://github.com/{REPOSITORY}\""""
# What `open_study` is called with: a notebook leaves out the arguments whose parameters it does not have.
OPEN = {
    "prompts": "PROMPTS",
    "dtype": "DTYPE",
    "layer": "LAYER",
    "pos": "POS",
    "system_prompt": "SYSTEM_PROMPT",
    "figures_dir": "FIGURES_DIR",
    "cache_dir": "CACHE_DIR",
    "seed": "SEED",
}
FIRST = ["MODEL", "SYSTEM_PROMPT", "PROMPTS", "DTYPE", "LAYER", "POS"]
LAST = ["SEED", "FIGURES_DIR", "CACHE_DIR"]


def cells_of(path: Path, kind: str | None = None) -> list[dict]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        cell["source"] = "".join(cell["source"])
    return [cell for cell in cells if kind in (None, cell["cell_type"])]


def code_of(path: Path) -> list[str]:
    """The sources of the code cells after the installation cell."""
    return [cell["source"] for cell in cells_of(path, "code")][1:]


def n_lines(source: str) -> int:
    return len([line for line in source.splitlines() if line.strip() and not line.strip().startswith("#")])


@ALSO_UNNUMBERED
def test_notebooks_are_short(path):
    code = code_of(path)[1:]
    assert len(cells_of(path)) <= 30
    assert max(map(n_lines, code)) <= 12
    assert statistics.median(map(n_lines, code)) <= 4
    lines = [line for source in code_of(path) for line in source.splitlines()]
    assert not [line for line in lines if len(line) > 100 and not line.startswith("- ")]  # a takeaway is a sentence


@ALSO_UNNUMBERED
def test_the_first_result_comes_within_25_lines_of_code(path):
    """Counted without the installation and the parameters: the first cell whose last statement shows something."""
    code = code_of(path)[1:]
    first = next(number for number, source in enumerate(code) if shows(source))
    assert sum(map(n_lines, code[: first + 1])) <= 25


def shows(source: str) -> bool:
    last = ast.parse(source).body[-1]
    return isinstance(last, ast.Expr)


@ALSO_UNNUMBERED
def test_notebooks_are_committed_without_outputs_and_with_stable_ids(path):
    assert not [cell["id"] for cell in cells_of(path, "code") if cell["outputs"] or cell["execution_count"]]
    ids = [cell["id"] for cell in cells_of(path)]
    assert len(set(ids)) == len(ids)


@EVERY
def test_the_head_is_the_same_in_all_notebooks(path):
    title, install, parameters = cells_of(path)[:3]
    assert title["cell_type"] == "markdown"
    assert re.match(rf"# {path.name[:2]} \S* ?", title["source"])
    badge = f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/notebooks/{path.name}"
    assert f"(https://colab.research.google.com/assets/colab-badge.svg)]({badge})" in title["source"]
    assert install["source"] == INSTALL
    assert "parameters" in parameters["metadata"].get("tags", ())
    assert sum("parameters" in cell["metadata"].get("tags", ()) for cell in cells_of(path)) == 1
    lines = parameters["source"].splitlines()
    assert all(re.match(r"[A-Z_]+ = .+  # @param ", line) for line in lines)
    names = [line.split(" = ")[0] for line in lines]
    own = [name for name in names if name not in FIRST + LAST]
    assert names == [name for name in FIRST if name in names] + own + [name for name in LAST if name in names]


@ALSO_EXPLORER
def test_the_study_is_opened_with_all_parameters_that_it_takes(path):
    parameters, setup = code_of(path)[:2]
    body = ast.parse(setup).body
    imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert sum(node.end_lineno - node.lineno + 1 for node in imports) <= 8
    (opened,) = [node for node in body if ast.unparse(node).startswith("study = open_study(")]
    taken = {keyword.arg: ast.unparse(keyword.value) for keyword in opened.value.keywords}
    assert ast.unparse(opened.value.args[0]) == "MODEL"
    assert taken == {name: value for name, value in OPEN.items() if re.search(rf"^{value} =", parameters, re.M)}


@ALSO_UNNUMBERED
def test_code_is_plain(path):
    """No shell commands, no bare assertions, no comprehensions inside f-strings, and no name bound twice."""
    code = code_of(path)[1:]
    assert not [source for source in code if re.search(r"^\s*[!%]", source, re.M)]
    trees = [ast.parse(source) for source in code]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    assert not [ast.unparse(node) for node in nodes if isinstance(node, ast.Assert)]
    comprehensions = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    inside = [each for node in nodes if isinstance(node, ast.JoinedStr) for each in ast.walk(node)]
    assert not [ast.unparse(node) for node in inside if isinstance(node, comprehensions)]
    bound = [name for tree in trees for name in names_bound(tree)]
    assert not {name for name in bound if bound.count(name) > 1}


def names_bound(tree: ast.Module) -> set[str]:
    """The names that a cell assigns or defines at its top level."""
    bound = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    stored = [each for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
    return bound | {each.id for each in stored if isinstance(each.ctx, ast.Store)}


@ALSO_UNNUMBERED
def test_every_reading_states_numbers(path):
    stated = {text: bold_numbers(text) for text, _ in readings(cells_of(path))}
    assert stated
    assert not [text for text, numbers in stated.items() if not numbers]


@pytest.mark.parametrize("path", [*find_notebooks(), MANY], ids=lambda path: path.stem)
def test_notebooks_check_their_claims_and_end_in_limits_and_measured_takeaways(path):
    prose = "\n".join(cell["source"] for cell in cells_of(path, "markdown"))
    assert prose.index("## Limits") < prose.index("## Takeaways")
    code = code_of(path)
    assert any("check(" in source for source in code)
    takeaways = [line for line in code[-1].splitlines() if line.startswith("- ")]
    assert 3 <= len(takeaways) <= 5
    assert all("{" in line for line in takeaways)  # a number of this run


@EVERY
def test_links_lead_to_files(path):
    links = [link for cell in cells_of(path, "markdown") for link in re.findall(r"\]\(([^)#]+)", cell["source"])]
    local = [link for link in links if not link.startswith("http")]
    assert not [link for link in local if not (path.parent / link).is_file()]
    later = [other.name for other in find_notebooks() if other.name > path.name]
    assert not later or later[0] in links


def test_a_stated_number_must_be_printed_in_its_own_section():
    """Before control of the test that executes the notebooks: numbers of figures and of other sections do not count."""
    figure = {"data": {"application/vnd.plotly.v1+json": {}, "text/plain": "0.7"}}
    table = {"data": {"text/html": "<td>0.238</td><td>24 %</td>", "text/plain": ""}}
    cells = [
        {
            "cell_type": "markdown",
            "source": ["## One\n", "**What you should see.** **0.24**, **24 %**, **0.7**, **11**."],
        },
        {"cell_type": "code", "source": "", "outputs": [table, figure]},
        {"cell_type": "markdown", "source": "## Two"},
        {"cell_type": "code", "source": "", "outputs": [{"text": ["✓  11 directions\n"]}]},
    ]
    ((text, section),) = readings(cells)
    printed = printed_numbers(section)
    assert {number: is_printed(number, printed) for number in bold_numbers(text)} == {
        "0.24": True,
        "24 %": True,
        "0.7": False,
        "11": False,
    }
