import pandas as pd
import pytest
import torch

from refusal_utils.directions.direction_set import DirectionSet, Provenance
from refusal_utils.directions.estimation import random_directions
from refusal_utils.heads.refusal_opening import RefusalOpening
from refusal_utils.heads.replacement import HeadTrial, forward_under, head_outputs, states_under
from refusal_utils.heads.shares import component_shares
from refusal_utils.model.capture import capture_activations
from refusal_utils.model.chat_model import load_chat_model
from refusal_utils.plotting.saving import FIGURES
from refusal_utils.prompts import CATEGORY_IDS, held_out, load_prompts, read_draw, twin_pairs
from refusal_utils.steering import first_token_logits
from refusal_utils.steering.conditions import UNSTEERED
from refusal_utils.steering.contexts import intervene

LAYER = 4


@pytest.fixture(scope="module")
def shallow():
    """The bundled model read at layer 4, so that heads of layer 3 write to the state directly."""
    return load_chat_model("bundled", device="cpu", layer=LAYER)


@pytest.fixture(scope="module")
def trial(shallow, prompts):
    """Six prompts of two categories, the next six as their twins."""
    frame = pd.DataFrame({"text": prompts[:6], "twin": prompts[6:12], "category": ["advice", "humanizing"] * 3})
    vectors = random_directions(2, shallow.d_model)
    directions = DirectionSet(("advice", "humanizing"), vectors, torch.ones(2), Provenance(LAYER))
    return HeadTrial.record(shallow, frame, prompts[12:20], directions)


def test_forward_under_nothing_is_the_plain_forward_pass(shallow, prompts):
    states, logits = forward_under(shallow, prompts[:9], [UNSTEERED] * 9)
    at = (LAYER, shallow.decision_pos)
    expected = capture_activations(shallow, prompts[:9], layers=at[:1], positions=at[1:]).at(*at)
    torch.testing.assert_close(states, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, first_token_logits(shallow, prompts[:9]), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="^forward_under: conditions must be 2, one per prompt; got 1"):
        forward_under(shallow, prompts[:2], [UNSTEERED])


def test_only_what_is_read_is_computed(shallow, trial, prompts):
    """The state alone comes from the layers below it, and the logits from the last token."""
    conditions = trial.ablate([[(0, 1)], [(1, 2), (0, 0)], [], [(3, 5)], [(2, 2)], [(2, 1)]])
    model, widths, layers = shallow.bridge.original_model, [], []
    handles = [model.lm_head.register_forward_hook(lambda *args: widths.append(args[-1].shape[1]))]
    for layer, block in enumerate(model.model.layers):
        handles.append(block.register_forward_hook(lambda *args, layer=layer: layers.append(layer)))
    try:
        states, logits = forward_under(shallow, prompts[:6], conditions)
        assert (set(widths), set(layers)) == ({1}, set(range(shallow.n_layers)))
        widths.clear(), layers.clear()
        alone = states_under(shallow, prompts[:6], conditions)
        assert (set(widths), max(layers)) == (set(), LAYER - 1)
    finally:
        for handle in handles:
            handle.remove()
    torch.testing.assert_close(alone, states, atol=1e-4, rtol=1e-4)
    with intervene(shallow, *conditions[1].interventions):
        plain = first_token_logits(shallow, prompts[1:2])
    torch.testing.assert_close(logits[1:2], plain, atol=1e-4, rtol=1e-4)


def test_a_trial_replaces_by_the_mean_over_benign_prompts_or_by_the_twin(shallow, trial, prompts):
    benign, twins = (head_outputs(shallow, own) for own in (prompts[12:20], prompts[6:12]))
    heads = [[(0, 1)], [(1, 2), (0, 0)], [], [(3, 5)], [(2, 2)], [(2, 1)]]
    for replace, values in ((trial.ablate, benign.mean(0).expand(6, -1, -1, -1, -1)), (trial.patch, twins)):
        conditions = replace(heads)
        assert len({condition.name for condition in conditions}) == 6
        assert not conditions[2].interventions
        for condition, own, z in zip(conditions, heads, values, strict=True):
            for edit in condition.interventions:
                assert edit.heads == tuple(own)
                for (layer, head), value in zip(own, edit.values, strict=True):
                    torch.testing.assert_close(value, z[layer, :, head])


def mlp_output(chat, texts):
    """What the MLP of the layer below the state writes, with whatever is hooked to the model."""
    at = (LAYER - 1, chat.decision_pos)
    return capture_activations(chat, texts, layers=at[:1], positions=at[1:], hook="mlp_out").at(*at)


def test_ablating_a_head_of_the_last_layer_moves_the_projection_by_its_share(shallow, trial):
    """The layer before the state writes to it directly, so effect and share must agree there, head by head."""
    texts, at = list(trial.prompts["text"]), {"layer": LAYER, "pos": shallow.decision_pos}
    own = torch.arange(6) % 2
    shares = component_shares(shallow, texts, trial.along[:2], **at)
    nothing = HeadTrial(shallow, trial.prompts, trial.along, 0 * trial.mean_z, trial.twin_z)
    before = trial.projections([UNSTEERED] * 6)
    for head in range(trial.n_heads):
        conditions = nothing.ablate([[(LAYER - 1, head)]] * 6)
        fall = before - trial.projections(conditions)
        # What the layer's MLP makes of the change is part of the effect and not of the share.
        with intervene(shallow, *conditions[0].interventions):
            changed = mlp_output(shallow, texts)
        mlps = (mlp_output(shallow, texts) - changed) @ trial.along[:2].T
        expected = shares.heads[:, -1, head] + mlps
        torch.testing.assert_close(fall, expected[range(6), own], atol=1e-3, rtol=1e-3)
        assert float(fall.abs().max()) > 1e-2  # before control: the head does something


def test_patching_all_heads_of_a_layer_with_a_twins_gives_the_twins_attention(shallow, trial):
    """After the first layer's heads are patched, the state at the same token is the twin's."""
    first = load_chat_model("bundled", device="cpu", layer=1, pos=-1)
    patched = trial.patch([[(0, head) for head in range(trial.n_heads)]] * 6)
    states, _ = forward_under(first, list(trial.prompts["text"]), patched)
    twins, _ = forward_under(first, list(trial.prompts["twin"]), [UNSTEERED] * 6)
    plain, _ = forward_under(first, list(trial.prompts["text"]), [UNSTEERED] * 6)
    torch.testing.assert_close(states, twins, atol=1e-4, rtol=1e-4)
    assert float((plain - twins).abs().max()) > 1e-2  # before control


def test_measure_reads_projection_logit_and_judged_response(shallow, trial):
    opening = RefusalOpening(torch.tensor([30, 40]), ("a", "b"), pd.Series({"advice": 1.0, "humanizing": 0.0}))
    found = trial.measure(trial.ablate([()] * 6), opening)
    assert found["projection"].to_numpy() == pytest.approx(trial.projections([UNSTEERED] * 6).numpy(), abs=1e-4)
    assert found["refusal logit"].isna().tolist() == [False, True] * 3
    logits = first_token_logits(shallow, [trial.prompts["text"][0]])
    assert found["refusal logit"][0] == pytest.approx(float(opening.logit(logits)), abs=1e-3)
    assert set(found["refused"]) <= {0.0, 1.0}


def test_every_category_has_sixteen_twin_pairs_that_made_no_direction():
    """What notebook 06 replaces heads on."""
    prompts = load_prompts()
    draw = read_draw(FIGURES / "bundled" / "01_draw.csv", prompts, "builtin")
    twins = twin_pairs(held_out(prompts, draw, limit=None))
    assert (twins["category"].value_counts().reindex(list(CATEGORY_IDS)) >= 16).all()
    assert {*twins["text"], *twins["twin"]}.isdisjoint(draw["text"])
    assert not {*twin_pairs(prompts)["text"]}.isdisjoint(draw["text"])  # before control
