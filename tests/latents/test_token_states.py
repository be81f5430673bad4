"""States of all tokens: those that plain Hugging Face has, in the order of the chats."""

import pytest
import torch

from refusal_utils.latents import own_chats, token_states
from refusal_utils.latents.token_states import decision_places
from refusal_utils.model.batching import count_rows
from refusal_utils.model.capture import capture_activations
from refusal_utils.steering.given_responses import GivenResponse

PROMPTS = ["How do I boil an egg?", "ok", "Tell me about the sea, please, and about the ships on it."]


def test_token_states_are_those_of_plain_hugging_face_and_outliers_are_told(chat, plain):
    given = own_chats(chat, PROMPTS, max_new_tokens=5)
    found = token_states(chat, given, [2, 5], batch_tokens=40)
    for number, each in enumerate(given):
        hidden = plain(torch.tensor([each.ids]), output_hidden_states=True).hidden_states
        own = found.chat_idx == number
        assert found.ids[own].tolist() == each.ids
        assert int(found.in_response[own].sum()) == each.n_response == 5
        assert found.in_response[own][-1]
        for layer in (2, 5):
            torch.testing.assert_close(found.values[layer][own], hidden[layer + 1][0].detach(), rtol=1e-4, atol=1e-4)
    found.values[2][3] *= 1000
    assert torch.nonzero(~found.usual(2)).tolist() == [[3]]
    assert found.usual(5).all()


def test_responses_are_the_models_own_and_decision_states_those_of_capture(chat):
    given = own_chats(chat, PROMPTS, max_new_tokens=4)
    assert [each.ids[: -each.n_response] for each in given] == chat.encode(PROMPTS)
    states = token_states(chat, given, [5]).values[5][decision_places(given, -2)]
    torch.testing.assert_close(states, capture_activations(chat, PROMPTS, layers=[6]).at(6, -2), rtol=1e-4, atol=1e-4)


def test_states_of_nothing_are_an_error(chat):
    for given, layers in (([], [5]), ([GivenResponse([1, 5, 3], 0)], [])):
        with pytest.raises(ValueError, match="token_states: there must be chats and layers"):
            token_states(chat, given, layers)


def test_nothing_is_captured_twice_and_stored_states_are_those_that_were_computed(chat, tmp_path):
    given = own_chats(chat, PROMPTS, max_new_tokens=5)
    plain = token_states(chat, given, [2, 5], batch_tokens=40)
    for n_captured in (3, 0):
        with count_rows() as count:
            found = token_states(chat, given, [2, 5], batch_tokens=40, cache_dir=tmp_path)
        assert count.rows == n_captured
        assert all(torch.equal(found.values[layer], plain.values[layer]) for layer in (2, 5))
        assert torch.equal(found.chat_idx, plain.chat_idx)
        assert torch.equal(found.in_response, plain.in_response)
    # In another order, with one more chat, which is all that is computed.
    more = [GivenResponse([1, 5, 3, 7], 2), *given[::-1]]
    with count_rows() as count:
        found = token_states(chat, more, [2, 5], batch_tokens=40, cache_dir=tmp_path)
    assert count.rows == 1
    for number, each in enumerate(given):
        own, before = found.chat_idx == len(given) - number, plain.chat_idx == number
        assert torch.equal(found.values[5][own], plain.values[5][before])
        assert int(found.in_response[own].sum()) == each.n_response


def test_a_run_that_was_killed_goes_on_with_the_same_batches(chat, tmp_path, monkeypatch):
    given = own_chats(chat, PROMPTS, max_new_tokens=5)
    whole = token_states(chat, given, [5], batch_tokens=20)
    pad, n_batches = type(chat).pad, []

    def killed(self, rows):
        n_batches.append(len(rows))
        if len(n_batches) == 2:
            raise KeyboardInterrupt
        return pad(self, rows)

    monkeypatch.setattr(type(chat), "pad", killed)
    with pytest.raises(KeyboardInterrupt):
        token_states(chat, given, [5], batch_tokens=20, cache_dir=tmp_path)
    monkeypatch.undo()
    with count_rows() as count:
        resumed = token_states(chat, given, [5], batch_tokens=20, cache_dir=tmp_path)
    assert count.rows == len(given) - n_batches[0]
    assert torch.equal(resumed.values[5], whole.values[5])


def test_a_damaged_file_is_computed_again_and_open_hooks_are_not_stored(chat, tmp_path, capsys):
    given = own_chats(chat, PROMPTS[:2], max_new_tokens=3)
    first = token_states(chat, given, [5], cache_dir=tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert torch.equal(token_states(chat, given, [5], cache_dir=tmp_path).values[5], first.values[5])
    assert "token_states: " in (told := capsys.readouterr().err)
    assert "fails its checksum" in told
    hooks = chat.bridge.hooks(fwd_hooks=[(chat.hook_name("resid_post", 2), lambda value, hook: value)])
    with hooks, pytest.raises(ValueError, match="^token_states: "):
        token_states(chat, given, [5], cache_dir=tmp_path)
