"""GGUF files: dequantized to the weights they hold, named in results, and one sentence when they cannot be read."""

import copy
import errno
import os
import sys

import pytest
import torch
import transformers
from huggingface_hub import constants
from safetensors.torch import load_file

from refusal_utils.heads.shares import component_shares
from refusal_utils.model import sources
from refusal_utils.model.artifacts import model_notes
from refusal_utils.model.chat_model import load_chat_model
from refusal_utils.model.sources import find_source, origin
from tests.gguf_model import small_llama, write_gguf

pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def llama():
    return small_llama()


@pytest.fixture(scope="module")
def files(llama, tmp_path_factory):
    """The model in two types, in a folder of its own with a cache of its own."""
    folder = tmp_path_factory.mktemp("gguf")
    return {
        "F32": write_gguf(folder / "small-f32.gguf", *llama, "F32", file_type=0),
        "Q8_0": write_gguf(folder / "small-q8.gguf", *llama, "Q8_0"),
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _own_cache(home, monkeypatch):
    monkeypatch.setattr(constants, "HF_HOME", str(home))


def logits(model, ids):
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0]


def rounded(values):
    """Q8_0 by its definition: blocks of 32 numbers, each a multiple of a float16 scale."""
    blocks = values.reshape(-1, 32)
    scale = blocks.abs().amax(1, keepdim=True) / 127
    steps = torch.where(scale > 0, blocks / scale, 0).round()
    return (steps * scale.half().float()).reshape(values.shape)


def test_a_file_in_float32_is_the_plain_model_with_its_tokenizer(llama, files, prompts):
    plain, tokenizer = llama
    chat = load_chat_model(files["F32"], device="cpu")
    for prompt, ids in zip(prompts[:4], chat.encode(prompts[:4]), strict=True):
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]
        torch.testing.assert_close(logits(chat.bridge.original_model, ids), logits(plain, ids), atol=1e-4, rtol=1e-4)
    stored = load_file(find_source(files["F32"]).place / "model.safetensors")
    assert all(torch.equal(values, plain.state_dict()[name]) for name, values in stored.items())
    assert len(stored) == len(list(plain.parameters()))
    kinds = ("bos", "eos", "pad")
    assert [getattr(chat.tokenizer, f"{kind}_token") for kind in kinds] == [
        getattr(tokenizer, f"{kind}_token") for kind in kinds
    ]
    assert chat.dequantized_from is None
    assert "dequantized" not in chat.describe()


def test_a_quantized_file_gives_the_rounded_weights_as_a_dense_model_that_says_so(llama, files, prompts):
    plain, _ = llama
    chat = load_chat_model(str(files["Q8_0"]), device="cpu")
    model = chat.bridge.original_model
    ids = chat.encode(prompts[:1])[0]
    expected = copy.deepcopy(plain)
    for values in expected.parameters():
        values.data = rounded(values.data) if values.ndim > 1 else values.data
    stored = load_file(find_source(files["Q8_0"]).place / "model.safetensors")
    for name, values in stored.items():  # a few of the 300,000 lie between two steps, where float32 decides
        assert (values != expected.state_dict()[name]).float().mean() < 1e-3
    gap, effect = (float((logits(model, ids) - logits(one, ids)).abs().max()) for one in (expected, plain))
    assert gap < effect / 5
    assert {values.dtype for values in model.parameters()} == {torch.float32}
    assert not hasattr(model.config, "quantization_config")
    assert f"{files['Q8_0']} on cpu in float32, dequantized from Q8_0: 2 layers" in chat.describe()
    assert model_notes(chat)["dequantized_from"] == "Q8_0"
    assert origin(str(files["Q8_0"])) == "dequantized from Q8_0"
    assert origin(str(files["F32"])) == origin("bundled") == ""
    component_shares(chat, prompts[:2], torch.eye(chat.d_model)[:2], layer=1)  # refused for quantized weights


def test_the_tokens_that_end_a_turn_stop_a_response(llama, files):
    tokenizer = llama[1]
    expected = {tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.convert_tokens_to_ids("<|end|>")}
    assert load_chat_model(files["F32"], device="cpu").stop_tokens == expected
    assert len(expected) == 2


def test_a_file_is_dequantized_once_and_again_when_it_changes(llama, tmp_path, capsys):
    path = write_gguf(tmp_path / "mine.gguf", *llama, "Q8_0")
    first, second = (load_chat_model(path, device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert capsys.readouterr().out.count("Dequantizing mine.gguf once") == 1
    assert (first.dtype, second.dtype) == (torch.float32, torch.bfloat16)
    assert second.dequantized_from == "Q8_0"
    write_gguf(path, *llama, "F32")
    again = load_chat_model(path, device="cpu")
    assert capsys.readouterr().out.count("Dequantizing") == 1
    assert again.dequantized_from is None
    assert again.fingerprint != first.fingerprint


def test_a_declared_type_is_preferred_to_the_commonest(llama, tmp_path):
    path = write_gguf(tmp_path / "mixed.gguf", *llama, "Q8_0", file_type=15)
    assert find_source(path).dequantized_from == "Q4_K_M"


def test_a_file_on_the_hub_is_named_by_repository_and_file(files, monkeypatch):
    asked = []

    def download(*names):
        asked.append(names)
        return str(files["Q8_0"])

    monkeypatch.setattr(sources, "hf_hub_download", download)
    found = find_source("Qwen/Small-GGUF:small-q8.gguf")
    assert asked == [("Qwen/Small-GGUF", "small-q8.gguf")]
    assert found == find_source(files["Q8_0"])

    def refuse(*names):
        raise OSError("404 Client Error. Entry not found")

    monkeypatch.setattr(sources, "hf_hub_download", refuse)
    with pytest.raises(ValueError, match=r"^load_chat_model: a GGUF model must be named as .*; got 'Qwen/Small-GGUF:x"):
        load_chat_model("Qwen/Small-GGUF:x.gguf")


def test_a_file_that_is_missing_or_damaged_is_one_sentence(files, llama, tmp_path):
    with pytest.raises(ValueError, match=r"^load_chat_model: the model must exist; got no file .*none\.gguf"):
        load_chat_model(tmp_path / "none.gguf")
    whole = files["Q8_0"].read_bytes()
    for content in (b"", b"not a model", whole[: len(whole) // 2], whole[:-5000]):
        (tmp_path / "cut.gguf").write_bytes(content)
        with pytest.raises(ValueError, match=r"^load_chat_model: the file must be a whole GGUF file"):
            load_chat_model(tmp_path / "cut.gguf")
    part = write_gguf(tmp_path / "part.gguf", *llama, "F32", skip="blk.1.ffn_up.weight")
    with pytest.raises(
        ValueError, match=r"^load_chat_model: the file must hold the whole model; got .*layers.1.mlp.up"
    ):
        load_chat_model(part)


def test_a_damaged_copy_says_what_to_delete(files):
    folder = find_source(files["F32"]).place
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])
    try:
        with pytest.raises(ValueError, match="the dequantized copy must be whole; .* Delete .*small-f32-"):
            load_chat_model(files["F32"], device="cpu")
    finally:
        (folder / "model.safetensors").write_bytes(content)


def test_without_the_package_gguf_one_sentence_says_what_to_install(llama, tmp_path, monkeypatch):
    path = write_gguf(tmp_path / "new.gguf", *llama, "F32")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ValueError, match=r"^load_chat_model: the package gguf is needed .* Run pip install 'refusal"):
        load_chat_model(path)


def test_a_full_disk_is_not_taken_for_a_damaged_file_and_leaves_nothing(llama, tmp_path, home, monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = write_gguf(tmp_path / "large.gguf", *llama, "F32")
    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", full)
    with pytest.raises(ValueError, match=r"^load_chat_model: the disk must have room for the model; .* set HF_HOME"):
        load_chat_model(path)
    assert not list(home.rglob("large*"))


def test_versions_of_transformers_that_keep_blocks_are_told_not_to(llama, tmp_path, monkeypatch):
    if not hasattr(transformers, "GgufConfig"):
        pytest.skip("this version of transformers always dequantizes")
    asked = []
    load = transformers.AutoModelForCausalLM.from_pretrained

    def spy(*args, **options):
        asked.append(options)
        return load(*args, **options)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", spy)
    find_source(write_gguf(tmp_path / "new.gguf", *llama, "Q8_0"))
    assert asked[0]["quantization_config"].dequantize
