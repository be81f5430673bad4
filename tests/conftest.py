import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer

from refusal_utils.chat_model import BUNDLED_WEIGHTS, ChatModel, load_chat_model

TEXTS = [
    "How do I boil an egg?",
    "ok",
    "Tell me about the sea, please, and about the ships that cross it in winter when the wind is up.",
    "what is the capital of France",
    "Write a limerick about a cat called Tom who learns to play the violin badly but with great feeling.",
    "why",
    "can you see me",
    "Compare two kinds of tea. One is green, the other black; which would you serve to a guest in the evening, and why?",
]


@pytest.fixture(scope="session")
def chat() -> ChatModel:
    return load_chat_model("bundled", device="cpu")


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    """Forty different prompts of mixed length."""
    return [f"{text} ({number})" if number else text for number in range(5) for text in TEXTS]


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


ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "mistral": "MistralForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
}


@pytest.fixture(scope="session", params=ARCHITECTURES)
def random_folder(request, tmp_path_factory) -> Path:
    """A folder with a small random-weight model of a real architecture: biases, grouped queries, uneven norms."""
    name = request.param
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "max_position_embeddings": 256}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 4096}
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_WEIGHTS)
    special = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("pad", "bos", "eos")}
    options = {"head_dim": 12} if name in ("gemma", "gemma2", "gemma3_text", "qwen3") else {}
    options |= {"attention_bias": True} if name in ("llama", "qwen3") else {}
    options |= {"mlp_bias": True} if name == "llama" else {}
    config = CONFIG_MAPPING[name](**sizes, **special, **options)
    config.architectures = [ARCHITECTURES[name]]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for key, parameter in model.named_parameters():
        noise = torch.randn_like(parameter)
        parameter.data = 0.3 * noise if parameter.ndim > 1 or "bias" in key else parameter.data + 0.3 * noise
    folder = tmp_path_factory.mktemp(name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
