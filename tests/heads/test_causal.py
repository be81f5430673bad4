import pytest
import torch

from refusal_utils.directions.estimation import random_directions
from refusal_utils.heads.causal import (
    attention_pattern,
    forward_under,
    head_conditions,
    head_outputs,
    opening_tokens,
    opens_with,
    refusal_logit,
    replacement,
    same_layer_heads,
    single_head_falls,
)
from refusal_utils.heads.shares import component_shares
from refusal_utils.model.capture import capture_activations
from refusal_utils.plotting.look import FIGURES
from refusal_utils.prompts.categories import CATEGORY_IDS
from refusal_utils.prompts.draws import held_out, read_draw
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.prompts.twins import twin_pairs
from refusal_utils.steering.conditions import UNSTEERED, Condition
from refusal_utils.steering.generation import first_token_logits
from refusal_utils.workflow.notebooks import find_notebooks, parameter_defaults

LAYERS, POSITIONS = (0, 1, 2, 3), (-2, -1)


def test_forward_under_nothing_is_the_plain_forward(chat, prompts):
    states, logits = forward_under(chat, prompts[:9], [UNSTEERED] * 9, layer=4, pos=-2)
    expected = capture_activations(chat, prompts[:9], layers=[4], positions=[-2]).at(4, -2)
    torch.testing.assert_close(states, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, first_token_logits(chat, prompts[:9]), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="one condition per prompt; got 1 for 2"):
        forward_under(chat, prompts[:2], [UNSTEERED])


def test_ablating_a_head_of_the_last_layer_moves_the_projection_by_its_share(chat, prompts):
    """The layer before the state writes directly: effect and attribution must agree there, head by head."""
    direction = random_directions(1, chat.d_model)
    shares = component_shares(chat, prompts[:9], direction, layer=4, pos=-2)
    outputs = head_outputs(chat, prompts[:9], LAYERS, POSITIONS)
    before, _ = forward_under(chat, prompts[:9], [UNSTEERED] * 9, layer=4, pos=-2)
    for head in range(outputs.shape[3]):
        nothing = Condition("zero", (replacement([(3, head)], 0 * outputs[0], LAYERS, POSITIONS),))
        after, _ = forward_under(chat, prompts[:9], [nothing] * 9, layer=4, pos=-2)
        moved = (before - after) @ direction[0]
        # what the layer's MLP makes of the change is part of the effect and not of the share
        written = shares.heads[:, 3, head, 0]
        through = component_shares_of_mlp(chat, prompts[:9], direction, nothing)
        torch.testing.assert_close(moved, written + shares.mlps[:, 3, 0] - through, atol=1e-3, rtol=1e-3)


def component_shares_of_mlp(chat, prompts, direction, condition):
    from refusal_utils.steering.contexts import intervene

    with intervene(chat, *condition.interventions):
        return component_shares(chat, prompts, direction, layer=4, pos=-2).mlps[:, 3, 0]


def test_patching_all_heads_with_those_of_another_prompt_gives_its_attention(chat, prompts):
    outputs = head_outputs(chat, prompts[:2], [0], POSITIONS)
    heads = [(0, head) for head in range(outputs.shape[3])]
    patched = Condition("patched", (replacement(heads, outputs[1], [0], POSITIONS),))
    states, _ = forward_under(chat, [prompts[0], prompts[1]], [patched, UNSTEERED], layer=1, pos=-1)
    torch.testing.assert_close(
        states[0], states[1], atol=1e-4, rtol=1e-4
    )  # layer 1 sees the same state at the same token
    plain, _ = forward_under(chat, [prompts[0]], [UNSTEERED], layer=1, pos=-1)
    assert float((plain[0] - states[1]).abs().max()) > 1e-2  # before control


def test_head_conditions_replace_each_prompts_own_heads_by_its_own_output_or_by_one_for_all():
    heads = [[(0, 1)], [(1, 2), (0, 0)]]
    outputs = torch.randn(2, 2, 2, 3, 4)
    own = head_conditions("own", heads, outputs, (0, 1), POSITIONS)
    same = head_conditions("same", heads, outputs[0], (0, 1), POSITIONS)
    assert [each.name for each in own] == ["own 0", "own 1"]
    for row, (first, second) in enumerate(zip(own, same, strict=True)):
        for condition, z in ((first, outputs[row]), (second, outputs[0])):
            (edit,) = condition.interventions
            assert edit.heads == tuple(heads[row])
            for (layer, head), values in zip(heads[row], edit.values, strict=True):
                assert torch.equal(values, z[layer, :, head])
    with pytest.raises(ValueError, match="head_conditions: there must be one output, or one per prompt; got 2 for 3"):
        head_conditions("own", [*heads, []], outputs, (0, 1), POSITIONS)


def test_single_head_falls_are_the_change_of_the_projection_inside_the_context(chat, prompts):
    """Against the same edit as a context around a plain capture."""
    from refusal_utils.steering.contexts import intervene

    layers = tuple(range(chat.decision_layer))
    outputs = head_outputs(chat, prompts[:6], layers, POSITIONS)
    along = random_directions(6, chat.d_model)
    heads = [(0, 1), (chat.decision_layer - 1, 0)]
    found = single_head_falls(chat, prompts[:6], along, heads, 0 * outputs[0], layers, POSITIONS)
    assert found.shape == (2, 6)

    def projection():
        at = {"layers": [chat.decision_layer], "positions": [chat.decision_pos]}
        states = capture_activations(chat, prompts[:6], **at)
        return (states.at(chat.decision_layer, chat.decision_pos) * along).sum(1)

    before = projection()
    for fall, head in zip(found, heads, strict=True):
        with intervene(chat, replacement([head], 0 * outputs[0], layers, POSITIONS)):
            torch.testing.assert_close(fall, before - projection(), atol=1e-3, rtol=1e-3)
    assert float(found.abs().max()) > 1e-2  # before control: the heads do something


def test_attention_pattern_is_that_of_plain_hugging_face(chat, prompts, plain_ids):
    from transformers import AutoModelForCausalLM

    from refusal_utils.model.chat_model import BUNDLED_WEIGHTS

    plain = AutoModelForCausalLM.from_pretrained(BUNDLED_WEIGHTS, dtype=torch.float32, attn_implementation="eager")
    ids = plain_ids(prompts[2])
    tokens, pattern = attention_pattern(chat, prompts[2], 3)
    with torch.no_grad():
        expected = plain(ids, output_attentions=True).attentions[3][0]
    torch.testing.assert_close(pattern, expected, atol=1e-4, rtol=1e-4)
    assert tokens == [chat.tokenizer.decode([token]) for token in ids[0]]
    torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:2]))


def test_random_heads_come_from_the_same_layers_and_are_others():
    heads = [(1, 0), (1, 3), (4, 2)]
    draws = same_layer_heads(heads, 6, 20)
    assert len({tuple(draw) for draw in draws}) > 1
    for draw in draws:
        assert sorted(layer for layer, _ in draw) == [1, 1, 4]
        assert len(set(draw)) == 3
        assert not set(draw) & set(heads)
    assert same_layer_heads([(0, head) for head in range(5)], 6, 1) == [[(0, 5)]]
    with pytest.raises(ValueError, match="at least 1 draw; got 0"):
        same_layer_heads(heads, 6, 0)


def test_opening_tokens_are_those_of_refusals_and_not_of_answers(chat):
    refused = ["Sorry, no."] * 5 + ["I cannot say."] * 4 + ["Rain is wet."]
    answered = ["Sure, a kettle.", "Rain is wet.", "I can tell."] * 2
    found = opening_tokens(chat, refused, answered)
    first = [chat.tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in ("Sorry, no.", "I cannot say.")]
    assert found.tolist() == first
    begins = opens_with(chat, [*refused, "", "Sorrowful", "I"], found)
    assert begins.tolist() == [True] * 9 + [False] * 3 + [True]
    with pytest.raises(ValueError, match="refusals must begin unlike answers"):
        opening_tokens(chat, ["Sure"], ["Sure"])


def test_refusal_logit_is_the_log_odds_of_the_opening_tokens():
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    p = float(logits.softmax(-1)[0, [0, 2]].sum())
    assert float(refusal_logit(logits, torch.tensor([0, 2]))) == pytest.approx(
        torch.logit(torch.tensor(p)).item(), rel=1e-5
    )


def test_every_category_has_the_pairs_that_notebook_05_replaces_heads_on_and_no_direction_was_made_of():
    prompts = load_prompts()
    draw = read_draw(FIGURES / "bundled" / "01_draw.csv", prompts, "builtin")
    twins = twin_pairs(held_out(prompts, draw, limit=None))
    n_twins = parameter_defaults(find_notebooks(["05"])[0])["N_TWINS"]
    assert (twins["category"].value_counts().reindex(list(CATEGORY_IDS)) >= n_twins).all()
    assert {*twins["text"], *twins["twin"]}.isdisjoint(draw["text"])
    assert not {*twin_pairs(prompts)["text"]}.isdisjoint(draw["text"])  # before control
