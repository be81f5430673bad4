"""Refusals that a system prompt orders: the right texts at the right system prompt, and rates counted by hand."""

from copy import deepcopy
from dataclasses import replace

import pandas as pd
import pytest
import torch

from refusal_utils.directions import DirectionSet, Provenance, random_directions
from refusal_utils.methods.instructed import InstructedEffects, instructed_effects, read_instructed
from refusal_utils.model.capture import capture_activations
from refusal_utils.model.chat_model import BUNDLED_WEIGHTS, load_chat_model
from refusal_utils.model.system_prompts import told
from refusal_utils.prompts.instructed import load_instructed
from refusal_utils.steering.conditions import UNSTEERED, ablation_condition
from refusal_utils.steering.responses import respond


@pytest.fixture(scope="module")
def pairs():
    rows = load_instructed(split="eval")
    return rows[rows["pair_id"].isin(rows["pair_id"].unique()[[0, 1, 10, 11]])]


@pytest.fixture(scope="module")
def without_role(chat):
    tokenizer = deepcopy(chat.tokenizer)
    rejects = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    tokenizer.chat_template = rejects + tokenizer.chat_template
    return replace(chat, tokenizer=tokenizer)


def test_states_are_those_of_a_model_loaded_with_that_system_prompt(chat, pairs):
    found = read_instructed(chat, pairs)
    assert found.given == "as a system role"
    system, own = next(iter(pairs.groupby("system", sort=False)))
    other = load_chat_model(BUNDLED_WEIGHTS, device="cpu", system_prompt=system)
    states = capture_activations(other, list(own["text"]), layers=[chat.decision_layer]).values[:, 0, 0]
    torch.testing.assert_close(found.off_topic[:2], states[~torch.tensor(own["on_topic"].to_numpy())])
    difference = found.off_topic.double().mean(0) - found.on_topic.double().mean(0)
    assert found.direction.gap("instructed") == pytest.approx(float(difference.norm()), rel=1e-5)
    assert chat.system_prompt is None  # the model is left as it was


def test_a_template_without_a_system_role_gets_the_order_before_the_users_text(chat, without_role, pairs):
    assert told(chat, "Be brief.")[1] == ""
    assert told(without_role, "Be brief.") == (without_role, "Be brief.\n\n")
    found = read_instructed(without_role, pairs)
    assert found.given == "before the user's text, because the template has no system role"
    row = pairs[~pairs["on_topic"]].iloc[0]
    states = capture_activations(chat, [f"{row.system}\n\n{row.text}"], layers=[chat.decision_layer]).values[0, 0]
    torch.testing.assert_close(found.off_topic[:1], states)


def test_chat_markup_in_an_order_is_refused(chat):
    with pytest.raises(ValueError, match="the system prompt must not contain chat markup"):
        told(chat, "Be brief.<|end|>")


def test_cosines_are_plain_cosines_and_one_with_a_copy_of_itself(chat, pairs):
    found = read_instructed(chat, pairs)
    draw = torch.Generator().manual_seed(0)
    refused = {"advice": torch.randn(8, chat.d_model, generator=draw), "same": found.off_topic + 0.01}
    table = found.cosines({"advice": refused["advice"], "same": found.off_topic}, found.on_topic, n_draws=20)
    plain = torch.cosine_similarity(
        refused["advice"].mean(0) - found.on_topic.mean(0), found.direction.vectors[0], dim=0
    )
    assert table.loc["advice", "cosine"] == pytest.approx(float(plain), abs=1e-5)
    assert table.loc["same", "cosine"] == pytest.approx(1, abs=1e-5)
    assert list(table.index) == ["advice", "same", "instructed"]


def test_effects_count_the_responses_of_each_group_under_each_condition(chat, pairs):
    directions = DirectionSet(("x",), random_directions(1, chat.d_model), torch.ones(1), Provenance(4))
    conditions = {"nothing": UNSTEERED, "x": ablation_condition(directions, "x")}
    harmful = pd.DataFrame({"id": ["a", "b"], "text": ["Which lottery numbers will win?", "Can you smell this?"]})
    effects = instructed_effects(chat, conditions, pairs, {"harmful": harmful}, max_new_tokens=8)
    found = effects.table(20)
    assert set(found.index) == {(name, group) for name in conditions for group in ("off topic", "on topic", "harmful")}
    assert found["n"].to_list() == [4, 4, 4, 4, 2, 2]
    assert (found["not judged"] == 0).all()
    plain = respond(chat, harmful, [conditions["x"]], max_new_tokens=8)
    assert found.loc[("x", "harmful"), "refused"] == (plain["outcome"] == "refused").mean()
    assert {trace.x.size for trace in effects.figure(title="Effects").data} == {1}  # one condition in three panels


def test_changes_are_those_of_the_same_prompts_and_unjudged_ones_do_not_count():
    def rows(condition: str, outcomes: str) -> pd.DataFrame:
        named = {"r": "refused", "a": "answered", "?": "not judged"}
        found = {"id": [*range(len(outcomes))], "outcome": [named[each] for each in outcomes]}
        return pd.DataFrame(found).assign(condition=condition, group="off topic")

    effects = InstructedEffects(
        pd.concat([rows("nothing", "rrrrrraa"), rows("same", "rrrrrraa"), rows("x", "raaa?aar")])
    )
    table = effects.table(500).droplevel("group")
    assert table.loc["nothing", ["change", "change low", "change high"]].tolist() == [0, 0, 0]
    assert table.loc["same", "change high"] == 0  # paired: two equal rows of verdicts differ by nothing
    assert (table.loc["x", "n"], table.loc["x", "not judged"]) == (7, 1)
    assert table.loc["x", "refused"] == pytest.approx(2 / 7)
    assert table.loc["x", "change"] == pytest.approx((1 - 4) / 7)  # of the seven judged twice
    assert table.loc["x", "change low"] < table.loc["x", "change"] < table.loc["x", "change high"] <= 0.2
