"""Control tokens are found, checked and read; the proxy stands in for them."""

import pandas as pd
import pytest
import torch

from refusal_utils.prompts.categories import BENIGN, CATEGORY_IDS
from refusal_utils.steering.control_tokens import (
    ControlTokens,
    OpeningProxy,
    control_token,
    find_control_tokens,
    opening_proxy,
)


def test_a_model_without_control_tokens_has_none_and_the_variant_has_twelve(chat, tokens_chat):
    assert find_control_tokens(chat) is None
    tokens = find_control_tokens(tokens_chat)
    texts = [tokens_chat.tokenizer.convert_ids_to_tokens(each) for each in (*tokens.refuse.values(), tokens.respond)]
    assert texts == [control_token(name) for name in (*CATEGORY_IDS, BENIGN)]
    assert len({*tokens.refuse.values(), tokens.respond}) == 12


def test_tokens_that_are_given_must_be_single_ones(chat):
    found = find_control_tokens(chat, {"any": "<|system|>"}, "<|user|>")
    assert found.refuse == {"any": chat.tokenizer.convert_tokens_to_ids("<|system|>")}
    with pytest.raises(
        ValueError, match=r"^find_control_tokens: a control token must be one token; got '\[refuse\]', whi"
    ):
        find_control_tokens(chat, {"any": "[refuse]"}, "<|user|>")


def test_control_tokens_are_compared_with_each_other_and_not_with_the_rest():
    tokens, logits = (
        ControlTokens({"a": 1, "b": 3}, respond=0),
        torch.tensor([[0.0, 1.0, 9.0, 2.0], [3.0, 0.0, 9.0, -1.0]]),
    )
    found = tokens.read(logits)
    odds = (logits[:, 1].exp() + logits[:, 3].exp()).double() / logits[:, 0].exp().double()
    torch.testing.assert_close(found.score, odds.log(), check_dtype=False)
    assert found.refuse.tolist() == [3, 1]
    assert [tokens.names[each] for each in found.named_idx] == ["b", "a"]
    assert found.own_refuses.tolist() == [True, False]
    whole = logits.double().softmax(-1)
    torch.testing.assert_close(found.probability, torch.stack([whole[0, 3], whole[1, 1]]))
    hotter = tokens.read(logits, temperature=2.0)
    assert (hotter.score.abs() < found.score.abs()).all()
    assert hotter.refuse.tolist() == found.refuse.tolist()


def test_the_proxy_answers_with_the_likeliest_token_that_neither_refuses_nor_stops():
    logits = torch.tensor([[0.0, 1.0, 9.0, 2.0], [3.0, 0.0, 9.0, 5.0]])
    found = OpeningProxy(torch.tensor([1, 3]), stops=[2]).read(logits)
    assert found.refuse.tolist() == [3, 3]
    assert found.respond.tolist() == [0, 0]
    odds = logits[:, [1, 3]].double().exp().sum(1) / logits[:, [0, 2]].double().exp().sum(1)
    torch.testing.assert_close(found.score, odds.log())


def test_a_proxy_needs_refusals_that_begin_otherwise(chat):
    rows = pd.DataFrame(
        {"response": ["No, never.", "No, sorry.", "Sure."], "outcome": ["refused", "refused", "answered"]}
    )
    assert chat.tokenizer.decode(opening_proxy(chat, rows).tokens).strip() == "No"
    with pytest.raises(ValueError, match="^opening_proxy: a proxy needs a token that opens more refusals than answers"):
        opening_proxy(chat, rows.assign(response="Sure."))


def test_a_proxy_has_the_tokens_that_open_four_fifths_of_the_refusals_whatever_else_was_said(chat):
    said = {"refused": ["No."] * 9 + ["Never."], "answered": ["Sure."] * 10, "broken": ["Oh oh"] * 10}
    rows = pd.DataFrame(
        [(text, outcome) for outcome, texts in said.items() for text in texts], columns=["response", "outcome"]
    )
    found = opening_proxy(chat, rows)
    assert chat.tokenizer.decode(found.tokens).strip() == "No"
    assert found.stops == sorted(chat.stop_tokens)
    assert opening_proxy(chat, rows.iloc[5:]).tokens.tolist() == found.tokens.tolist()  # just four of five
    assert len(opening_proxy(chat, rows.iloc[6:]).tokens) == 2
