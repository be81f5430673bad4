"""What the tests of methods that ask the model share: train prompts, a cache per module, and a tiny model."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from refusal_utils.model.chat_model import load_chat_model
from refusal_utils.prompts.loading import load_prompts

from ..families import save_family


@pytest.fixture(scope="module")
def train():
    return load_prompts(split="train")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A small random model, through this package and through Hugging Face alone."""
    folder = save_family("qwen2", tmp_path_factory.mktemp("tiny") / "qwen2")
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return load_chat_model(folder, device="cpu"), plain
