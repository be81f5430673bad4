"""What every notebook says about where the project lives: its Colab badge and its Colab cell, made in one place.

Owner and name stand in `pyproject.toml` under `[project.urls]`; `python -m refusal_utils badges --repo owner/name`
changes them there and in every notebook.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from .notebooks import find_notebooks

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
BADGE = re.compile(r"^\[!\[Open in Colab\].*$", re.M)
COLAB = '"google.colab" in sys.modules'
COLAB_LACKS = ("transformer-lens", "jaxtyping", "circuitsvis", "umap-learn")  # the last, in case it goes

_SETUP = """\
# On Colab: fetch the suite and install what Colab lacks, changing nothing that it has. Elsewhere this cell does nothing.
import contextlib
import os
import sys

if "google.colab" in sys.modules and "REFUSAL_UTILS_UNATTENDED" not in os.environ:
    import torch
    from google.colab import userdata

    if not os.path.isdir("/content/{name}"):
        !git clone --quiet --depth 1 https://github.com/{repo} /content/{name}
    !{{sys.executable}} -m pip list --format=freeze > /tmp/preinstalled.txt
    %pip install --quiet --constraint /tmp/preinstalled.txt {requirements}
    sys.path.insert(0, "/content/{name}")
    %cd /content/{name}/notebooks
    with contextlib.suppress(Exception):  # no such secret, or not for this notebook: only gated models need one
        os.environ["HF_TOKEN"] = os.environ.get("HF_TOKEN") or userdata.get("HF_TOKEN")
    print("GPU:", torch.cuda.get_device_name() if torch.cuda.is_available() else "none (Runtime > Change runtime type)")"""


def badge(repo: str, notebook: str) -> str:
    """The Markdown of the badge that opens `notebook` (a file name) of the GitHub repository `repo` in Colab."""
    link = f"https://colab.research.google.com/github/{repo}/blob/main/notebooks/{notebook}"
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({link})"


def setup_cell(repo: str) -> str:
    """The source of the cell that makes the suite of `repo` importable on Colab and does nothing anywhere else.

    What Colab has is a constraint on what is installed, so pip takes older versions of what Colab lacks rather than
    newer ones of what it has, and no restart is needed.
    """
    requirements = " ".join(f'"{each}"' for each in colab_requirements())
    return _SETUP.format(repo=repo, name=repo.split("/")[1], requirements=requirements)


def colab_requirements() -> list[str]:
    """The requirements that Colab lacks, with the bounds of `pyproject.toml`."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["notebooks"]
    return [line for name in COLAB_LACKS for line in declared if re.split(r"[<>=\[]", line)[0] == name]


def repository() -> str:
    """The GitHub repository, `owner/name`, as `pyproject.toml` has it."""
    url = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    return "/".join(url.rstrip("/").split("/")[-2:])


def stamp(repo: str | None = None) -> list[Path]:
    """Write `repo` (default: as it is) into `pyproject.toml` and both cells of every notebook; the files that changed.

    Raises `ValueError` for a name that is not `owner/name`, and a notebook without badge or Colab cell.
    """
    if repo is not None and not re.fullmatch(r"[A-Za-z0-9-]+/[\w.-]+", repo):
        raise ValueError(f"stamp: the repository must read owner/name; got {repo!r}. Leave https://github.com/ out.")
    repo = repo or repository()
    wanted = {PYPROJECT: _with_url(PYPROJECT.read_text(encoding="utf-8"), repo)}
    wanted |= {path: stamped(path, repo) for path in find_notebooks()}
    changed = [path for path, text in wanted.items() if path.read_text(encoding="utf-8") != text]
    for path in changed:
        path.write_text(wanted[path], encoding="utf-8")
    return changed


def stamped(path: Path, repo: str) -> str:
    """The text of the notebook's file with the badge and Colab cell of `repo`; all else stays as it is.

    Raises `ValueError` for a notebook without badge or Colab cell.
    """
    notebook = json.loads(path.read_text(encoding="utf-8"))
    title = notebook["cells"][0]
    setup = next((cell for cell in notebook["cells"] if COLAB in "".join(cell["source"])), None)
    if setup is None or not BADGE.search("".join(title["source"])):
        raise ValueError(
            f"stamped: a notebook must have a badge in its title cell and a Colab cell; got {path.name} without. "
            "Copy both from another notebook."
        )
    _set(title, BADGE.sub(lambda _: badge(repo, path.name), "".join(title["source"]), count=1))
    _set(setup, setup_cell(repo))
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _set(cell: dict[str, Any], source: str) -> None:
    cell["source"] = source.splitlines(keepends=True)


def _with_url(text: str, repo: str) -> str:
    return re.sub(r'^(Repository = )".*"$', lambda match: f'{match[1]}"https://github.com/{repo}"', text, flags=re.M)
