import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from refusal_utils.__main__ import main
from refusal_utils.workflow import badges
from refusal_utils.workflow import notebooks as notebook_files
from refusal_utils.workflow.badges import colab_requirements, repository, setup_cell, stamp, stamped
from refusal_utils.workflow.notebooks import find_notebooks

FREEZE = Path(__file__).parent.parent.parent.parent / "shared" / "data" / "colab_freeze_2026-08.txt"
CUDA = re.compile(r"(nvidia|cuda|triton)\b.*")  # left out of the freeze


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """A copy of `pyproject.toml` and the notebooks, to be stamped."""
    shutil.copytree(notebook_files.NOTEBOOKS, tmp_path / "notebooks")
    shutil.copy(badges.PYPROJECT, tmp_path)
    monkeypatch.setattr(notebook_files, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(badges, "PYPROJECT", tmp_path / "pyproject.toml")
    return tmp_path


@pytest.mark.parametrize("path", find_notebooks(), ids=lambda path: path.stem)
def test_every_notebook_is_as_stamped(path):
    assert path.read_text(encoding="utf-8") == stamped(path, repository())


def test_stamp_changes_the_two_cells_of_every_notebook_and_nothing_else(suite):
    before = {path: json.loads(path.read_text()) for path in find_notebooks()}
    assert len(stamp("some-one/their.fork")) == 1 + len(before)
    assert repository() == "some-one/their.fork"
    for path, old in before.items():
        text = path.read_text()
        new = json.loads(text)
        changed = [number for number, cell in enumerate(new["cells"]) if cell != old["cells"][number]]
        assert changed == [0, 1]
        assert f"github/some-one/their.fork/blob/main/notebooks/{path.name})" in text
        assert "https://github.com/some-one/their.fork /content/their.fork" in text
        assert "refusal-geometry/" not in text
        assert new["cells"][0]["source"][0] == old["cells"][0]["source"][0]
        assert {**new, "cells": None} == {**old, "cells": None}


def test_stamp_twice_changes_nothing_and_back_gives_the_same_bytes(suite):
    original = repository()
    stamp()
    before = {path: path.read_bytes() for path in (badges.PYPROJECT, *find_notebooks())}
    assert stamp() == []
    stamp("a/b")
    assert stamp("a/b") == []
    stamp(original)
    assert {path: path.read_bytes() for path in before} == before


def test_stamp_refuses_what_is_no_repository_and_a_notebook_without_the_cells(suite, capsys):
    assert main(["badges", "--repo", "https://github.com/a/b"]) == 1
    assert "stamp: the repository must read owner/name; got 'https://github.com/a/b'" in capsys.readouterr().err
    path = find_notebooks()[0]
    path.write_text(path.read_text().replace("google.colab", "elsewhere"))
    with pytest.raises(ValueError, match="stamped: a notebook must have a badge.*got 01_build_datasets.ipynb without"):
        stamp("a/b")
    assert repository() != "a/b"


def run_cell(monkeypatch, token: str | None) -> list[str]:
    """What the Colab cell asks of IPython, on a Colab whose secrets hold `token`."""
    asked: list[str] = []

    def secret(name):
        if token is None:
            raise LookupError("SecretNotFoundError")
        return token

    def system(line):
        asked.append(f"!{line}")

    def magic(name, line):
        asked.append(f"%{name} {line}")

    userdata = types.ModuleType("google.colab.userdata")
    userdata.get = secret
    colab = types.ModuleType("google.colab")
    colab.userdata = userdata
    shell = types.SimpleNamespace(system=system, run_line_magic=magic)
    for name, module in {"google.colab": colab, "google.colab.userdata": userdata}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys, "path", list(sys.path))
    source = TransformerManager().transform_cell(setup_cell("owner/suite"))
    exec(compile(source, "cell", "exec"), {"get_ipython": lambda: shell})
    return asked


def test_the_colab_cell_clones_installs_under_constraints_and_takes_the_token(monkeypatch, capsys):
    monkeypatch.delenv("REFUSAL_UTILS_UNATTENDED", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    clone, freeze, install, folder = run_cell(monkeypatch, "hf_secret")
    assert clone == "!git clone --quiet --depth 1 https://github.com/owner/suite /content/suite"
    assert "pip list --format=freeze > /tmp/preinstalled.txt" in freeze
    assert "--constraint /tmp/preinstalled.txt" in install
    assert "--upgrade" not in install
    assert all(f'"{each}"' in install for each in colab_requirements())
    assert folder == "%cd /content/suite/notebooks"
    assert os.environ["HF_TOKEN"] == "hf_secret"
    shown = capsys.readouterr().out
    assert shown.startswith("GPU: ")
    assert "hf_secret" not in shown
    monkeypatch.setenv("HF_TOKEN", "mine")
    run_cell(monkeypatch, "hf_secret")
    assert os.environ["HF_TOKEN"] == "mine"


def test_the_colab_cell_goes_on_without_a_secret_and_clones_once(monkeypatch):
    monkeypatch.delenv("REFUSAL_UTILS_UNATTENDED", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(os.path, "isdir", lambda path: path == "/content/suite")
    asked = run_cell(monkeypatch, None)
    assert len(asked) == 3
    assert not [line for line in asked if "clone" in line]
    assert "HF_TOKEN" not in os.environ


def test_the_colab_cell_does_nothing_elsewhere_nor_under_the_runner(monkeypatch, capsys):
    source = TransformerManager().transform_cell(setup_cell("owner/suite"))
    before = list(sys.path)
    exec(compile(source, "cell", "exec"), {})  # without get_ipython any command would fail
    assert sys.path == before
    monkeypatch.setenv("REFUSAL_UTILS_UNATTENDED", "1")
    assert run_cell(monkeypatch, "hf_secret") == []
    assert capsys.readouterr().out == ""


def test_colab_requirements_have_the_bounds_of_pyproject():
    assert colab_requirements()[0] == "transformer-lens>=3.9,<5"
    assert [re.split("[<>=]", line)[0] for line in colab_requirements()] == list(badges.COLAB_LACKS)


@pytest.mark.slow
@pytest.mark.skipif(not FREEZE.is_file(), reason="the list of what Colab has is not here")
def test_what_colab_has_stays_as_it_is(tmp_path):
    """pip resolves every requirement of the package with all of Colab's versions kept."""
    import tomllib

    declared = tomllib.loads(badges.PYPROJECT.read_text())["project"]["dependencies"]
    python = next(filter(works, ("python3.13", sys.executable)), None)
    if python is None:
        pytest.skip("no Python with pip")
    options = ["--dry-run", "--ignore-installed", "--quiet", "--constraint", str(FREEZE)]
    report = tmp_path / "report.json"
    done = subprocess.run(
        [python, "-m", "pip", "install", *options, "--report", str(report), *declared, *colab_requirements()],
        capture_output=True,
        text=True,
    )
    if unreachable(done.stderr):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr[-2000:]
    has = {normal(line.split("==")[0]): line.split("==")[1] for line in FREEZE.read_text().split() if "==" in line}
    found = {
        normal(each["metadata"]["name"]): each["metadata"]["version"]
        for each in json.loads(report.read_text())["install"]
    }
    assert {name: version for name, version in found.items() if name in has and has[name] != version} == {}
    new = {name for name in found if name not in has and not CUDA.match(name)}
    assert {"transformer-lens", "jaxtyping", "circuitsvis"} <= new
    assert not new & {"torch", "numpy", "pandas", "plotly", "transformers", "tokenizers", "scipy", "scikit-learn"}


@pytest.mark.parametrize(
    ("said", "skipped"),
    [
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)': /simple/torch/\n"
            "ERROR: Could not find a version that satisfies the requirement torch (from versions: none)\n",
            True,
        ),
        ("pip._vendor.requests.exceptions.ConnectionError: HTTPSConnectionPool(host='pypi.org')", True),
        ("ERROR: Could not find a version that satisfies the requirement plotly>=99 (from versions: 5.24.1)", False),
        ("ERROR: Could not find a version that satisfies the requirement jaxtypin (from versions: none)", False),
        (
            "ERROR: Cannot install x and torch==2.11.0 because these package versions have conflicting dependencies.",
            False,
        ),
        ("WARNING: Retrying after connection broken by 'ReadTimeoutError()'\nERROR: ResolutionImpossible", False),
    ],
)
def test_a_resolution_that_fails_is_no_missing_connection(said, skipped):
    assert unreachable(said) == skipped


def unreachable(said: str) -> bool:
    """Whether pip failed for want of a connection, rather than because the versions do not go together."""
    nothing_came = "connection broken" in said and "(from versions: none)" in said
    return nothing_came or "exceptions.ConnectionError" in said


def works(python: str) -> bool:
    try:
        return subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0
    except OSError:
        return False


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
