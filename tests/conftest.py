import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from refusal_utils.model.chat_model import BUNDLED_WEIGHTS, ChatModel, load_chat_model

from .families import FAMILIES, save_family

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


@pytest.fixture(scope="session")
def chat() -> ChatModel:
    return load_chat_model("bundled", device="cpu")


@pytest.fixture(scope="session")
def tokens_chat() -> ChatModel:
    return load_chat_model("bundled-tokens", device="cpu")


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    return forty_prompts()


@pytest.fixture(scope="session")
def plain():
    """The bundled model through Hugging Face alone: the independent route of many tests."""
    return AutoModelForCausalLM.from_pretrained(BUNDLED_WEIGHTS, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def plain_ids() -> Callable[[str], torch.Tensor]:
    """Encodes one prompt with Hugging Face alone."""
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


@pytest.fixture(scope="session", params=FAMILIES)
def random_folder(request, tmp_path_factory) -> Path:
    """A folder with a small random-weight model of a real chat family, with its turn format."""
    return save_family(request.param, tmp_path_factory.mktemp("families") / request.param)


@pytest.fixture(scope="session")
def random_chat(random_folder) -> ChatModel:
    """That model in float32, loaded once for all tests: they leave it as they found it."""
    return load_chat_model(random_folder, device="cpu")
