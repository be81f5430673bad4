import dataclasses
import inspect
import shutil
import socket

import numpy as np
import pandas as pd
import pytest
import torch

from refusal_utils.model import capture as module
from refusal_utils.model.capture import capture_activations, profile_places
from refusal_utils.model.chat_model import load_chat_model

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


def test_loading_and_capturing_need_no_network(model_folder, prompts, tmp_path, offline):
    for name in ("bundled", model_folder):
        own = load_chat_model(name, device="cpu")
        assert capture_activations(own, prompts[:4], cache_dir=tmp_path).n_captured in (0, 4)
    assert offline == []
    with pytest.raises(OSError, match="unreachable"):
        socket.create_connection(("huggingface.co", 443), timeout=1)
    assert len(offline) == 1  # after: an attempt would have been seen


def test_capture_reads_again_what_it_wrote(chat, prompts, tmp_path):
    first = capture_activations(chat, prompts, cache_dir=tmp_path, batch_tokens=SMALL)
    again = capture_activations(chat, prompts, cache_dir=tmp_path, batch_tokens=SMALL)
    assert (first.n_captured, again.n_captured) == (len(prompts), 0)
    assert torch.equal(first.values, again.values)
    some = capture_activations(chat, prompts[5:12][::-1], cache_dir=tmp_path, batch_tokens=SMALL)
    assert some.n_captured == 0  # a subset in another order is found too
    assert torch.equal(some.values, first.values[5:12].flip(0))


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_killed_capture_resumes_bit_identical(chat, prompts, tmp_path, monkeypatch, error):
    unbroken = capture_activations(chat, prompts, cache_dir=tmp_path / "a", batch_tokens=SMALL)
    original, calls = module._read_positions, []

    def killed(*args):
        calls.append(1)
        if len(calls) > 3:
            raise error
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_read_positions", killed)
        with pytest.raises(error):
            capture_activations(chat, prompts, cache_dir=tmp_path / "b", batch_tokens=SMALL)
    assert len(files(tmp_path / "b")) == 3
    resumed = capture_activations(chat, prompts, cache_dir=tmp_path / "b", batch_tokens=SMALL)
    assert 0 < resumed.n_captured < len(prompts)
    assert torch.equal(resumed.values, unbroken.values)
    written = [[path.name for path in files(tmp_path / side)] for side in "ab"]
    assert written[0] == written[1]


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


def test_memory_that_runs_out_changes_only_the_batches(chat, prompts, monkeypatch, capsys):
    expected = capture_activations(chat, prompts)
    original, sizes = module._read_positions, []

    def small_memory(chat, ids, names, positions):
        if len(ids) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(ids))
        return original(chat, ids, names, positions)

    monkeypatch.setattr(module, "_read_positions", small_memory)
    captured = capture_activations(chat, prompts)
    assert max(sizes) == 10
    assert sum(sizes) == len(prompts) == captured.n_captured
    assert "capture_activations: out of memory at 40 prompts" in capsys.readouterr().err
    torch.testing.assert_close(captured.values, expected.values, atol=1e-4, rtol=1e-4)


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
        ({"layers": [99]}, "capture_activations: layers must be of 0 to 7; got 99"),
        ({"layers": [-1]}, "capture_activations: layers must be of 0 to 7; got -1"),
        ({"batch_tokens": 0}, "capture_activations: batch_tokens must be at least 1; got 0"),
        ({"batch_tokens": -5}, "capture_activations: batch_tokens must be at least 1; got -5"),
        ({"hook": "pattern"}, "the hook must be of the residual stream, 192 wide, or 'z'; got 'pattern'"),
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


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"prompts": "hello"}, "prompts must be a list of texts; got 'hello'"),
        ({"prompts": {"hello"}}, "prompts must be a list of texts; got {'hello'}"),
        ({"prompts": None}, "prompts must be a list of texts; got None"),
        ({"layers": 2}, "layers must be a list of whole numbers; got 2"),
        ({"layers": ["2"]}, r"layers must be a list of whole numbers; got \['2'\]"),
        ({"positions": -2}, "positions must be a list of whole numbers; got -2"),
        ({"positions": [-2.0]}, r"positions must be a list of whole numbers; got \[-2.0\]"),
    ],
)
def test_capture_rejects_what_is_no_list(chat, asked, words):
    """As users call it, without the run-time checks of the annotations, which would speak first."""
    as_users_call_it = inspect.unwrap(capture_activations)
    with pytest.raises(ValueError, match=f"capture_activations: {words}"):
        as_users_call_it(chat, asked.pop("prompts", ["hello"]), **asked)


def test_capture_takes_whole_numbers_and_texts_of_any_kind(chat, prompts):
    expected = capture_activations(chat, prompts[:3], layers=[1, 2], positions=[-2])
    as_users_call_it = inspect.unwrap(capture_activations)
    for kind in (torch.tensor, np.array, pd.Series):
        captured = as_users_call_it(chat, pd.Series(prompts[:3]), layers=kind([1, 2]), positions=kind([-2]))
        assert (captured.layers, captured.positions) == ((1, 2), (-2,))
        assert torch.equal(captured.values, expected.values)


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
