"""The package as users install it: from a wheel, and on Colab, next to what Colab has installed."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from refusal_utils.plotting.saving import chrome

ROOT = Path(__file__).parents[2]
FREEZE = ROOT.parent / "shared" / "data" / "colab_freeze_2026-08.txt"
CORE = ("torch", "numpy", "pandas", "plotly", "transformers", "scipy", "scikit-learn")


def pip(*arguments: str | Path, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "pip", *map(str, arguments)], capture_output=True, text=True, check=False, **options
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the package installed from its wheel, without its dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    offline = ("--no-deps", "--no-index", "--quiet", "--disable-pip-version-check")
    built = pip("wheel", *offline, "--no-build-isolation", "--wheel-dir", folder / "wheel", ROOT)
    assert built.returncode == 0, built.stderr
    (wheel,) = (folder / "wheel").glob("*.whl")
    assert pip("install", *offline, "--target", folder / "site", wheel).returncode == 0
    return folder / "site"


@pytest.mark.slow
def test_an_installed_package_runs_notebooks_from_an_empty_folder_and_writes_there(installed, tmp_path):
    command = ["run", "--notebooks", "01", "03", "--set", "N_PROMPTS=32", "N_BOOTSTRAP=50"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REFUSAL_")}
    done = subprocess.run(
        [sys.executable, "-m", "refusal_utils", *command],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith(f"are in {Path('figures', 'bundled')}")
    assert (tmp_path / "figures" / "bundled" / "01_draw.csv").is_file()
    assert (tmp_path / "figures" / "bundled" / "03_cosine_matrix.csv").is_file()
    pictures, pages = ({path.stem for path in tmp_path.rglob(f"0*.{kind}")} for kind in ("png", "html"))
    assert pictures == (pages if chrome() else set())
    executed = sorted((tmp_path / "figures" / "bundled" / "notebooks").glob("*.ipynb"))
    assert [path.name[:2] for path in executed] == ["01", "03"]
    assert not [path for path in executed if str(ROOT) in path.read_text()]
    assert {path.name for path in tmp_path.iterdir()} <= {"figures", ".cache"}


@pytest.mark.slow
def test_the_wheel_holds_notebooks_prompts_and_the_bundled_model(installed):
    package = installed / "refusal_utils"
    for folder, pattern in (("notebooks", "*.ipynb"), ("prompts", "*.jsonl")):
        shipped = {path.name for path in (package / f"_{folder}").glob(pattern)}
        assert shipped == {path.name for path in (ROOT / folder).glob(pattern)}
    weights = [f"bundled/{folder}/model.safetensors" for folder in ("weights", "weights_tokens")]
    for file in (*weights, "paper/data/table1_cosine.json", "__init__.pyi"):
        assert (package / file).is_file()


@pytest.mark.slow
@pytest.mark.skipif(not FREEZE.is_file(), reason="the list of Colab's packages is not here")
def test_pip_changes_nothing_that_colab_has(tmp_path):
    """pip plans the installation in an environment that claims to hold Colab's versions, as metadata without code."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "colab"], check=True)
    (site,) = (tmp_path / "colab").rglob("site-packages")
    present = dict(line.split("==") for line in FREEZE.read_text().split() if "==" in line)
    for name, version in present.items():
        info = site / f"{normal(name).replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "RECORD").touch()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["notebooks"]
    report = tmp_path / "report.json"
    plan = ("install", "--dry-run", "--quiet", "--report", report)
    done = pip("--python", *(tmp_path / "colab").glob("*/python"), *plan, *wanted)
    if unreachable(done.stderr):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr[-2000:]
    new = {normal(each["metadata"]["name"]) for each in json.loads(report.read_text())["install"]}
    assert new & set(map(normal, present)) == set()
    assert {"transformer-lens", "jaxtyping", "papermill"} <= new
    assert set(CORE) <= set(map(normal, present))


@pytest.mark.parametrize(
    ("message", "skipped"),
    [
        ("WARNING: connection broken by 'NewConnectionError(...)'\nERROR: No torch (from versions: none)\n", True),
        ("pip._vendor.requests.exceptions.ConnectionError: HTTPSConnectionPool(host='pypi.org')", True),
        ("ERROR: Could not find a version that satisfies the requirement jaxtypin (from versions: none)", False),
        ("WARNING: Retrying after connection broken by 'ReadTimeoutError()'\nERROR: ResolutionImpossible", False),
    ],
)
def test_a_failed_resolution_is_not_taken_for_a_missing_connection(message, skipped):
    assert unreachable(message) == skipped


def unreachable(message: str) -> bool:
    """Whether pip failed for want of a connection, rather than because versions do not go together."""
    nothing_came = "connection broken" in message and "(from versions: none)" in message
    return nothing_came or "exceptions.ConnectionError" in message


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
