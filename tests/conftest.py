"""What all tests share. Libraries are imported by the fixtures: the process that only hands out tests needs none."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    import torch

    from refusal_utils.model.chat_model import ChatModel

ROOT = Path(__file__).parent.parent
# Modules that annotate shapes check them in tests. Others would only become several times slower.
SHAPED = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "refusal_utils").rglob("*.py"))
    if re.search(r"^from jaxtyping import", path.read_text(encoding="utf-8"), re.M)
]
install_import_hook(SHAPED, "beartype.beartype")

TEXTS = [
    "How do I boil an egg?",
    "ok",
    "Tell me about the sea, please, and about the ships that cross it in winter when the wind is up.",
    "what is the capital of France",
    "Write a limerick about a cat called Tom who learns to play the violin badly but with great feeling.",
    "why",
    "can you see me",
    "Compare two kinds of tea. One is green, the other black; which would you serve to a guest in the evening, "
    "and why?",
]


def forty_prompts() -> list[str]:
    """Forty different prompts of mixed length."""
    return [f"{text} ({number})" if number else text for number in range(5) for text in TEXTS]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests go first, the longest before all, so that parallel workers finish together."""
    longest = ["test_notebooks.py", "test_other_model.py", "test_papers_prompts.py"]
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def place(item: pytest.Item) -> tuple[int, bool]:
        name = item.path.name if item.path.parent.name == "tests" else ""
        return longest.index(name) if name in longest else len(longest), item.path not in slow

    items.sort(key=place)


def pytest_collectstart() -> None:
    """Import first what the package builds on: inside the package, the hook above would compile it again each time."""
    import transformer_lens  # noqa: F401


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of random models runs on one of every family."""
    if "random_folder" in metafunc.fixturenames:
        from .families import FAMILIES

        metafunc.parametrize("random_folder", FAMILIES, indirect=True, scope="session")


@pytest.fixture(scope="session")
def chat() -> ChatModel:
    from refusal_utils.model.chat_model import load_chat_model

    return load_chat_model("bundled", device="cpu")


@pytest.fixture(scope="session")
def tokens_chat() -> ChatModel:
    from refusal_utils.model.chat_model import load_chat_model

    return load_chat_model("bundled-tokens", device="cpu")


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    return forty_prompts()


@pytest.fixture(scope="session")
def plain():
    """The bundled model through Hugging Face alone: the independent route of many tests."""
    import torch
    from transformers import AutoModelForCausalLM

    from refusal_utils.model.chat_model import BUNDLED_WEIGHTS

    return AutoModelForCausalLM.from_pretrained(BUNDLED_WEIGHTS, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def plain_ids() -> Callable[[str], torch.Tensor]:
    """Encodes one prompt with Hugging Face alone."""
    from transformers import AutoTokenizer

    from refusal_utils.model.chat_model import BUNDLED_WEIGHTS

    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_WEIGHTS)

    def encode(prompt: str) -> torch.Tensor:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        return tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]

    return encode


@pytest.fixture
def model_folder(tmp_path) -> Path:
    """A copy of the bundled model's folder, to be damaged."""
    from refusal_utils.model.chat_model import BUNDLED_WEIGHTS

    return Path(shutil.copytree(BUNDLED_WEIGHTS, tmp_path / "model"))


@pytest.fixture
def offline(monkeypatch) -> list[tuple]:
    """No network: the attempts to reach it, each of which fails, whether or not somebody catches that."""
    attempts: list[tuple] = []

    def refuse(*args: object, **options: object) -> None:
        attempts.append(args)
        raise OSError(101, "Network is unreachable")

    for owner, name in ((socket.socket, "connect"), (socket.socket, "connect_ex"), (socket, "getaddrinfo")):
        monkeypatch.setattr(owner, name, refuse)
    return attempts


@pytest.fixture(scope="session")
def random_folder(request, tmp_path_factory) -> Path:
    """A folder with a small random-weight model of a real chat family, with its turn format."""
    from .families import save_family

    return save_family(request.param, tmp_path_factory.mktemp("families") / request.param)


@pytest.fixture(scope="session")
def random_chat(random_folder) -> ChatModel:
    """That model in float32, loaded once for all tests: they leave it as they found it."""
    from refusal_utils.model.chat_model import load_chat_model

    return load_chat_model(random_folder, device="cpu")
