"""States of all tokens: those that plain Hugging Face has, in the order of the chats."""

import pytest
import torch

from refusal_utils.latents import own_chats, token_states
from refusal_utils.latents.token_states import decision_places
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
