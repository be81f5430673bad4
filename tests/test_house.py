"""The parts of the house style that a machine can check: layers, sizes, shapes, errors, and lists of dependencies."""

import ast
import re
import shutil
import statistics
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml

from refusal_utils.directions import cosine_matrix

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "refusal_utils"
# The closed list of axis names, then those of resampling, curves and rows of text.
# A name may be qualified if two axes of one kind differ in size: `refused_prompt`, `answered_prompt`.
AXES = {"batch", "prompt", "category", "pos", "layer", "head_index", "component", "coefficient", "rank"}
AXES |= {"d_model", "d_head", "d_vocab", "latent"}
AXES |= {"draw", "side", "pair", "direction", "grid", "row", "kept", "token"}
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))


def test_imports_follow_the_arrows():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_functions_stay_short(module):
    source = (PACKAGE / f"{module}.py").read_text()
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    long = [node.name for node in functions if node.end_lineno - node.lineno >= 40]  # with the docstring
    assert source.count("\n") <= 250
    assert not long


def test_nothing_is_unpickled_and_no_code_of_a_model_is_run():
    """PyTorch's and numpy's own readers can be told to run what is in a file; they may not be."""
    unsafe = re.compile(
        r"weights_only=False|allow_pickle=True|trust_remote_code=True|pickle\.loads?\(|joblib\.load|read_pickle"
    )
    sources = {module: (PACKAGE / f"{module}.py").read_text() for module in MODULES}
    assert {module: unsafe.findall(source) for module, source in sources.items() if unsafe.search(source)} == {}
    for source in sources.values():
        for call in re.findall(r"(?<!safetensors\.)torch\.load\([^)]*\)", source):
            assert "weights_only=True" in call


def length(node: ast.FunctionDef) -> int:
    """Lines of a function without its docstring."""
    doc = node.body[0] if ast.get_docstring(node) else None
    return node.end_lineno - node.lineno + 1 - (doc.end_lineno - doc.lineno + 1 if doc else 0)


def test_the_median_function_has_at_most_eight_lines():
    trees = [ast.parse((PACKAGE / f"{module}.py").read_text()) for module in MODULES]
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert statistics.median(map(length, functions)) <= 8


# What results are made from, summaries of prompts, and comparisons with the paper: CONTRIBUTING.md gives the reasons.
TABLES_ALONE = {"Sweep", "EqualCost", "RefusalOpening", "TwinComparison", "Claims", "Comparison"}


@pytest.mark.parametrize("module", MODULES)
def test_results_have_a_table_and_a_figure(module):
    classes = [
        node for node in ast.parse((PACKAGE / f"{module}.py").read_text()).body if isinstance(node, ast.ClassDef)
    ]
    methods = {node.name: {each.name for each in node.body if isinstance(each, ast.FunctionDef)} for node in classes}
    results = {name for name, own in methods.items() if "table" in own}
    assert {name for name in results if "figure" not in methods[name]} <= TABLES_ALONE
    frozen = {node.name for node in classes if "frozen=True" in " ".join(map(ast.unparse, node.decorator_list))}
    assert results <= frozen


def axes_of(module: str) -> set[str]:
    """The names of the axes in all shapes that `module` annotates."""
    source = (PACKAGE / f"{module}.py").read_text()
    shapes = re.findall(r"""\b(?:Float|Int|Integer|Bool|Shaped|Num)\[\w+, (["'])(.*?)\1\]""", source)
    return {axis.lstrip("*#_?") for _, shape in shapes for axis in shape.split()}


@pytest.mark.parametrize("module", MODULES)
def test_axes_have_the_names_of_the_closed_list(module):
    named = {axis for axis in axes_of(module) if not re.fullmatch(r"\d*|\.\.\.", axis)}
    known = {axis for axis in named if any(axis == each or axis.endswith(f"_{each}") for each in AXES)}
    assert not named - known


def test_modules_that_annotate_shapes_check_them_in_tests():
    names = {module: f"refusal_utils.{module.replace('/', '.')}".removesuffix(".__init__") for module in MODULES}
    loaders = {module: type(import_module(name).__loader__).__name__ for module, name in names.items()}
    checked = {module for module, loader in loaders.items() if loader == "_JaxtypingLoader"}
    assert not {module for module in MODULES if axes_of(module)} - checked
    with pytest.raises(TypeError, match="cosine_matrix"):
        cosine_matrix(torch.ones(3))


def public_functions(module: str) -> list[ast.FunctionDef]:
    """The functions of `module`, and the methods of its classes, whose names do not begin with an underscore."""
    body = ast.parse((PACKAGE / f"{module}.py").read_text()).body
    bodies = [body, *(node.body for node in body if isinstance(node, ast.ClassDef) and node.name[0] != "_")]
    return [node for each in bodies for node in each if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]


@pytest.mark.parametrize("module", MODULES)
def test_public_signatures_give_every_tensor_a_shape(module):
    bare = set()
    for node in public_functions(module):
        given = [*(each.annotation for each in (*node.args.args, *node.args.kwonlyargs)), node.returns]
        text = " ".join(ast.unparse(each) for each in given if each is not None)
        if re.search(r"(?<!\[)\bTensor\b(?!, ['\"])", re.sub(r"\b[A-Z]\w+\[Tensor, ", "[", text)):
            bare.add(f"{module}.{node.name}")
    assert not bare


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_name_what_is_raised(module):
    silent = set()
    for node in public_functions(module):
        called = {ast.unparse(each.func) for each in ast.walk(node) if isinstance(each, ast.Call)}
        raises = {"ValueError", "invalid", "require", "require_finite"} & called
        if raises and not re.search(r"\bRaises?\b", ast.get_docstring(node) or ""):
            silent.add(f"{module}.{node.name}")
    assert not silent


@pytest.mark.parametrize("module", [module for module in MODULES if module != "checks"])
def test_argument_errors_are_made_in_one_place(module):
    """No module builds the message `{function}: {must}; got {got}. {todo}` or checks for finite values on its own."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "ValueError"]
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert not [ast.unparse(call) for call in calls if "; got" in ast.unparse(call)]
    assert not functions & {"require", "_require", "_require_finite", "_check_finite", "_invalid"}


@pytest.mark.parametrize("module", [module for module in MODULES if module.endswith("__init__") and "/" in module])
def test_subpackages_say_what_they_are_for(module):
    doc = ast.get_docstring(ast.parse((PACKAGE / f"{module}.py").read_text()))
    assert len(doc.split()) >= 12


def test_environment_yml_installs_what_pyproject_declares():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    python = next(line for line in environment["dependencies"] if isinstance(line, str) and line.startswith("python"))
    lowest = re.search(r">=(\d+\.\d+)", project["requires-python"])[1]
    assert f">={lowest}" in python
    pip = next(line for line in environment["dependencies"] if isinstance(line, dict))["pip"]
    extras = re.fullmatch(r"-e \.\[(.+)\]", pip[0])[1].split(",")
    assert len(pip) == 1
    assert set(extras) == set(project["optional-dependencies"]) - {"dev", "docs"}


def test_pyproject_bounds_are_loose_and_constraints_are_exact():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] + [line for lines in project["optional-dependencies"].values() for line in lines]
    assert {"transformer-lens>=3.9,<5", "plotly>=5.24", "pandas>=2.2", "torch", "numpy"} <= set(declared)
    assert not [line for line in declared if "==" in line]
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    assert (pins["torch"], pins["transformer-lens"], pins["sae-lens"]) == ("2.13.0", "3.9.0", "6.54.12")
    names = {re.split(r"[<>=\[]", line)[0].lower() for line in declared}
    assert names <= {name.lower().replace("_", "-") for name in pins}


def test_ci_runs_the_readmes_test_command():
    assert "make test" in (ROOT / ".ci/run").read_text()
    assert "bash .ci/run" in (ROOT / ".github/workflows/ci.yml").read_text()
    assert "make test" in (ROOT / "README.md").read_text()


def test_the_readmes_windows_lines_work_in_its_old_shell_and_name_a_python():
    """Windows PowerShell 5.1 has no `&&`, and a bare `py` takes the newest Python, which may be too new."""
    block = next(each for each in (ROOT / "docs" / "install.md").read_text().split("```") if "py -" in each)
    assert "&&" not in block
    named = re.search(r"^py -(3\.\d+) -m venv \.venv$", block, re.M)[1]
    assert f'"{named}"' in (ROOT / ".github/workflows/ci.yml").read_text()


def test_make_clean_removes_what_git_ignores_and_nothing_else(tmp_path):
    lines = [line for line in (ROOT / ".gitignore").read_text().split() if not line.startswith("#")]
    ignored = [line for line in lines if not line.startswith("!")]
    made = [tmp_path / each.strip("/").replace("**", "deep/er").replace("*", "any") for each in ignored]
    made += [tmp_path / "notebooks" / "deep" / folder / "file" for folder in (".ipynb_checkpoints", "__pycache__")]
    kept = [tmp_path / each for each in ("figures/any/01.png", "figures/any/01.csv", "notebooks/01.ipynb", "Makefile")]
    kept += [tmp_path / line.lstrip("!/") for line in lines if line.startswith("!")]
    for path in (*made, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for line, path in zip(ignored, made, strict=False):
        if line.endswith("/"):
            path.unlink()
            path.mkdir()
            (path / "file").touch()
    shutil.copy(ROOT / "Makefile", tmp_path)
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
