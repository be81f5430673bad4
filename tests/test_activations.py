import dataclasses
import shutil
import subprocess
import sys

import pytest
import torch

from refusal_utils import activations as module
from refusal_utils.activations import capture_activations, profile_places
from refusal_utils.chat_model import load_chat_model

SMALL = 128  # batch_tokens: about ten batches of the forty prompts


def files(folder):
    return sorted(folder.rglob("*.safetensors"))


def test_capture_equals_plain_hugging_face_one_prompt_at_a_time(chat, prompts, plain, plain_ids):
    captured = capture_activations(chat, prompts, positions=(-2, -1), batch_tokens=SMALL)
    for index, prompt in enumerate(prompts):
        with torch.no_grad():
            hidden = plain(plain_ids(prompt), output_hidden_states=True).hidden_states
        for layer in range(chat.n_layers):
            for pos in (-2, -1):
                torch.testing.assert_close(captured.at(layer, pos)[index], hidden[layer][0, pos], atol=1e-4, rtol=1e-4)


def test_capture_does_not_depend_on_the_batch(chat, prompts):
    whole = capture_activations(chat, prompts, batch_tokens=100_000).values
    single = capture_activations(chat, prompts, batch_tokens=1).values
    torch.testing.assert_close(whole, single, atol=1e-4, rtol=1e-4)


def test_capture_keeps_only_the_asked_layers_and_positions(chat, prompts):
    captured = capture_activations(chat, prompts[:4], layers=[5, 2], positions=[-3])
    assert captured.values.shape == (4, 2, 1, chat.d_model)
    full = capture_activations(chat, prompts[:4], positions=[-3])
    torch.testing.assert_close(captured.at(2, -3), full.at(2, -3), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"Activations.at: the layer must be a captured one; got 3. Captured: 5, 2"):
        captured.at(3, -3)
    with pytest.raises(ValueError, match=r"the pos must be a captured one; got -1"):
        captured.at(5, -1)


def test_capture_stops_at_the_deepest_asked_layer(chat, prompts):
    ran = []
    hooks = [
        (f"blocks.{layer}.hook_mlp_out", lambda value, hook: ran.append(hook.name)) for layer in range(chat.n_layers)
    ]
    with chat.bridge.hooks(fwd_hooks=hooks):
        capture_activations(chat, prompts[:2], layers=[2])
        assert len(ran) == 2  # blocks 0 and 1
        ran.clear()
        chat.bridge(torch.tensor(chat.encode(prompts[:1])))
        assert len(ran) == chat.n_layers  # before: a whole forward runs them all


def test_capture_leaves_the_model_as_it_was(chat, prompts):
    tokens = torch.tensor(chat.encode(prompts[:1]))
    before = chat.bridge(tokens)
    capture_activations(chat, prompts)
    assert torch.equal(chat.bridge(tokens), before)


def test_capture_reads_again_what_it_wrote(chat, prompts, tmp_path):
    first = capture_activations(chat, prompts, cache_dir=tmp_path, batch_tokens=SMALL)
    again = capture_activations(chat, prompts, cache_dir=tmp_path, batch_tokens=SMALL)
    assert (first.n_captured, again.n_captured) == (len(prompts), 0)
    assert torch.equal(first.values, again.values)
    some = capture_activations(chat, prompts[5:12][::-1], cache_dir=tmp_path, batch_tokens=SMALL)
    assert some.n_captured == 0  # a subset in another order is found too
    assert torch.equal(some.values, first.values[5:12].flip(0))


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_killed_capture_resumes_bit_identical(chat, prompts, tmp_path, monkeypatch, error):
    unbroken = capture_activations(chat, prompts, cache_dir=tmp_path / "a", batch_tokens=SMALL)
    original, calls = module._forward_once, []

    def killed(*args):
        calls.append(1)
        if len(calls) > 3:
            raise error
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_forward_once", killed)
        with pytest.raises(error):
            capture_activations(chat, prompts, cache_dir=tmp_path / "b", batch_tokens=SMALL)
    assert len(files(tmp_path / "b")) == 3
    resumed = capture_activations(chat, prompts, cache_dir=tmp_path / "b", batch_tokens=SMALL)
    assert 0 < resumed.n_captured < len(prompts)
    assert torch.equal(resumed.values, unbroken.values)
    written = [[path.name for path in files(tmp_path / side)] for side in "ab"]
    assert written[0] == written[1]


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_file_is_named_and_recomputed(chat, prompts, tmp_path, capsys, damage):
    first = capture_activations(chat, prompts, cache_dir=tmp_path, batch_tokens=SMALL)
    path = files(tmp_path)[1]
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-5] ^= 1
    path.write_bytes({"truncate": content[: len(content) // 2], "flip": content, "empty": b""}[damage])
    again = capture_activations(chat, prompts, cache_dir=tmp_path, batch_tokens=SMALL)
    assert path.name in capsys.readouterr().err
    assert 0 < again.n_captured < len(prompts)
    assert torch.equal(again.values, first.values)
    assert capture_activations(chat, prompts, cache_dir=tmp_path, batch_tokens=SMALL).n_captured == 0


def test_different_questions_do_not_share_entries(chat, prompts, tmp_path, model_folder):
    capture_activations(chat, prompts[:4], cache_dir=tmp_path)
    for options in ({"layers": [1]}, {"positions": (-1,)}, {"hook": "mlp_out"}):
        assert capture_activations(chat, prompts[:4], cache_dir=tmp_path, **options).n_captured == 4
    other = load_chat_model(model_folder, device="cpu", system_prompt="Be kind.")
    assert capture_activations(other, prompts[:4], cache_dir=tmp_path).n_captured == 4
    changed = load_chat_model(model_folder, device="cpu")
    with torch.no_grad():
        next(changed.bridge.original_model.parameters()).mul_(1.01)
    assert capture_activations(changed, prompts[:4], cache_dir=tmp_path).n_captured == 4
    half = load_chat_model(model_folder, device="cpu", dtype=torch.bfloat16)
    assert capture_activations(half, prompts[:4], cache_dir=tmp_path).n_captured == 4
    assert capture_activations(chat, prompts[:4], cache_dir=tmp_path).n_captured == 0


@pytest.mark.slow
def test_two_processes_may_write_at_once(chat, prompts, tmp_path):
    code = (
        "import sys; from refusal_utils.chat_model import load_chat_model; "
        "from refusal_utils.activations import capture_activations; from tests.conftest import TEXTS; "
        "prompts = [f'{text} ({n})' if n else text for n in range(5) for text in TEXTS]; "
        f"capture_activations(load_chat_model(device='cpu'), prompts, cache_dir={str(tmp_path)!r}, batch_tokens={SMALL})"
    )
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(timeout=300) for process in running] == [0, 0]
    captured = capture_activations(chat, prompts, cache_dir=tmp_path, batch_tokens=SMALL)
    assert captured.n_captured == 0
    assert torch.equal(captured.values, capture_activations(chat, prompts, batch_tokens=SMALL).values)
    assert not list(tmp_path.rglob("*.part"))


def test_out_of_memory_halves_the_batch_and_says_so(chat, prompts, monkeypatch, capsys):
    expected = capture_activations(chat, prompts)
    original, sizes = module._forward_once, []

    def small_memory(chat, ids, names, positions):
        if len(ids) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(ids))
        return original(chat, ids, names, positions)

    monkeypatch.setattr(module, "_forward_once", small_memory)
    captured = capture_activations(chat, prompts)
    assert max(sizes) == 10
    assert sum(sizes) == len(prompts) == captured.n_captured
    assert "out of memory at 40 prompts, going on with 20" in capsys.readouterr().err
    torch.testing.assert_close(captured.values, expected.values, atol=1e-4, rtol=1e-4)


def test_other_runtime_errors_are_not_taken_for_lack_of_memory(chat, prompts, monkeypatch):
    def broken(*args):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(module, "_forward_once", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        capture_activations(chat, prompts)


@pytest.mark.parametrize("call", ["mkstemp", "replace"])
def test_an_unwritable_cache_is_one_sentence_and_nothing_is_lost(chat, prompts, tmp_path, monkeypatch, call):
    capture_activations(chat, prompts[:8], cache_dir=tmp_path, batch_tokens=SMALL)
    before = {path: path.read_bytes() for path in files(tmp_path)}

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.tempfile if call == "mkstemp" else module.os, call, full)
    with pytest.raises(ValueError, match="the cache must be writable; got No space left on device at .*kept"):
        capture_activations(chat, prompts, cache_dir=tmp_path, batch_tokens=SMALL)
    assert {path: path.read_bytes() for path in files(tmp_path)} == before
    assert not list(tmp_path.rglob("*.part"))


def test_values_that_are_not_finite_are_named_by_prompt_and_layer(chat, prompts, model_folder):
    broken = load_chat_model(model_folder, device="cpu")
    others = {token for ids in broken.encode(prompts[:2]) for token in ids}
    odd = next(token for token in broken.encode(["zzz"])[0] if token not in others)
    with torch.no_grad():
        broken.bridge.original_model.get_input_embeddings().weight[odd] = float("nan")
    with pytest.raises(ValueError, match=r"must be finite; got NaN or inf for prompt 2 at layer [1-7]"):
        capture_activations(broken, [*prompts[:2], "zzz"], layers=range(1, broken.n_layers))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": [99]}, "hook_name: the layer must be one of 0 to"),
        ({"positions": [0]}, "positions must lie in the template's last 4 tokens; got 0"),
        ({"positions": [-5]}, "positions must lie in the template's last 4 tokens; got -5"),
        ({"positions": []}, "layers and positions must not be empty"),
        ({"layers": []}, "layers and positions must not be empty"),
    ],
)
def test_capture_rejects_layers_and_positions_out_of_range(chat, prompts, options, words):
    with pytest.raises(ValueError, match=words):
        capture_activations(chat, prompts, **options)


def test_capture_rejects_no_prompts(chat):
    with pytest.raises(ValueError, match="there must be at least one prompt; got none"):
        capture_activations(chat, [])


def test_cache_folder_can_be_deleted_between_runs(chat, prompts, tmp_path):
    capture_activations(chat, prompts[:4], cache_dir=tmp_path / "c")
    shutil.rmtree(tmp_path / "c")
    assert capture_activations(chat, prompts[:4], cache_dir=tmp_path / "c").n_captured == 4


def test_profile_places_are_all_of_a_shallow_model_and_some_of_a_deep_one(chat):
    shallow = profile_places(chat)
    assert shallow["layers"] == tuple(range(chat.n_layers))
    assert shallow["positions"] == tuple(range(-len(chat.suffix), 0))
    deep = profile_places(dataclasses.replace(chat, n_layers=80, decision_layer=41))["layers"]
    assert {0, 41} <= set(deep) < set(range(80))
    assert list(deep) == sorted(deep)
    assert 16 <= len(deep) <= 18
