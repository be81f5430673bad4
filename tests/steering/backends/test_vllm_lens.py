"""The contract of the adapter for vLLM, against an imitation of the plugin that is right, and others that are not."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from refusal_utils.steering import UNSTEERED, Ablation, Addition, Condition, generate
from refusal_utils.steering.backends import checked_backend
from refusal_utils.steering.backends.backend import Reply, Request
from refusal_utils.steering.backends.parity import check_parity
from refusal_utils.steering.backends.vllm_lens import StreamEdit, VllmLens, load_vllm_lens
from refusal_utils.steering.interventions import HeadReplacement

from ...conftest import forty_prompts
from ...families import save_family
from .imitation import LLM, Context, Hook, SamplingParams

PROMPTS, N_NEW = forty_prompts()[:20], 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_family("qwen2", tmp_path_factory.mktemp("models") / "qwen2")


@pytest.fixture(scope="module")
def chat(folder):
    from refusal_utils.model.chat_model import load_chat_model

    return load_chat_model(folder, device="cpu")


@pytest.fixture(scope="module")
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def added(chat):
    return Condition("added", (Addition(4 * random_direction(chat)[0], (1, 2)),), "any", 4.0, 2.0)


@pytest.fixture(scope="module")
def ablated(chat):
    return Condition("ablated", (Ablation(random_direction(chat, 2), (1, 2)),))


def random_direction(chat, rank=1):
    rows = torch.randn(rank, chat.d_model, generator=torch.Generator().manual_seed(rank))
    return torch.linalg.qr(rows.T)[0].T.contiguous()


def backend(chat, model, fault=""):
    return VllmLens(chat, LLM(model, fault), SamplingParams, Hook)


@pytest.mark.parametrize(
    ("layers", "options"),
    [
        ((0,), {}),
        ((-1,), {}),
        ((0, 1, 2), {"tokens": "generation"}),
        ((1,), {"tokens": "prompt"}),
        ((0,), {"every": 3}),
        ((1, 2), {"keep_norm": True}),
    ],
)
def test_additions_give_our_tokens(chat, model, layers, options):
    vector = 4 * random_direction(chat)[0]
    own = Condition("own", (Addition(vector, layers, **options),))
    conditions = [UNSTEERED, own]
    checked = checked_backend(chat, backend(chat, model), PROMPTS, [own], max_new_tokens=N_NEW)
    theirs = checked.generate(PROMPTS[:4], conditions, max_new_tokens=N_NEW)
    ours = generate(chat, PROMPTS[:4], conditions, max_new_tokens=N_NEW)
    assert theirs.equals(ours)


def test_projections_give_our_tokens_and_our_columns(chat, model, added, ablated):
    checked = checked_backend(chat, backend(chat, model), PROMPTS, [added, ablated], max_new_tokens=N_NEW)
    assert {kind: each.failed for kind, each in checked.parities.items()} == {"Addition": {}, "Ablation": {}}
    conditions = [UNSTEERED, added, ablated]
    theirs = checked.generate(PROMPTS[:5], conditions, max_new_tokens=N_NEW)
    assert theirs.equals(generate(chat, PROMPTS[:5], conditions, max_new_tokens=N_NEW))


@pytest.mark.parametrize(
    ("fault", "failed"),
    [
        ("hooks are ignored", {"steered", "uncounted"}),
        ("hooks run on the prompt alone", {"uncounted"}),
        ("hooks run one layer later", {"steered"}),
        ("hooks act on all requests of the call", {"mates"}),
        ("hooked states come back rounded", {"zero"}),
        ("steering is twice as strong", {"steered"}),
        ("another template", {"unsteered", "steered"}),
    ],
)
def test_every_fault_of_an_engine_fails_the_gate_that_is_for_it(chat, model, added, fault, failed):
    found = check_parity(chat, backend(chat, model, fault), PROMPTS, added, N_NEW)
    assert failed <= set(found.failed)


def test_an_engine_that_fails_the_gate_is_not_returned(chat, model, added):
    engine = backend(chat, model, "hooks are ignored")
    with pytest.raises(ValueError, match="checked_backend: vllm-lens must answer as generate"):
        checked_backend(chat, engine, PROMPTS, [added], max_new_tokens=N_NEW)


def test_a_request_that_is_answered_unsteered_after_the_gate_is_an_error(chat, model, added):
    engine = backend(chat, model)
    checked = checked_backend(chat, engine, PROMPTS, [added], max_new_tokens=N_NEW)
    engine.llm.fault = "hooks are ignored"
    with pytest.raises(
        ValueError, match="every request must be answered under its condition; got 3 of 6 that were not"
    ):
        checked.generate(PROMPTS[:3], [UNSTEERED, added], max_new_tokens=N_NEW)


@pytest.mark.parametrize(("n_seen", "is_steered"), [(5, False), (6, True), (7, True), (8, False), (12, False)])
@pytest.mark.parametrize("stopped", [False, True])
def test_a_steered_reply_has_seen_all_its_tokens_but_the_last_or_all(added, n_seen, is_steered, stopped):
    """Four tokens of the prompt, three of the response, the last of which may be the stop token."""
    request, tokens = Request([1, 2, 3, 4], added), (7, 8) if stopped else (7, 8, 9)
    assert Reply(tokens, stopped, n_seen).is_steered(request) == is_steered
    assert Reply(tokens, stopped, n_seen).is_steered(Request(request.ids, UNSTEERED))


def test_an_unsteered_request_has_no_hooks_and_sees_nothing(chat, model, added):
    both = [Request(ids, each) for ids, each in zip(chat.encode(PROMPTS[:2]), (UNSTEERED, added), strict=True)]
    unsteered, steered = backend(chat, model).answer(both, 3)
    assert unsteered.n_seen == 0
    assert steered.n_seen >= len(both[1].ids)


def test_the_states_before_a_layer_are_those_after_the_one_before_it(chat, model):
    deep = replace(chat, n_layers=8)
    added = Condition("added", (Addition(random_direction(chat)[0], (-1, 0, 3, 6)),))
    after, before = backend(deep, model)._hooks(Request([1, 2], added))
    assert (after.layer_indices, before.layer_indices) == ([2, 5, 6], [0])
    assert before.pre
    assert not after.pre


def test_an_edit_acts_on_every_token_unless_told_otherwise(chat):
    vector, states = random_direction(chat)[0], torch.ones(5, chat.d_model)
    none = vector[None][:0]
    for options, at in (({}, [0, 1, 2, 3, 4]), ({"every": 2}, [0, 2, 4]), ({"tokens": "generation"}, [3, 4])):
        edit, context = StreamEdit(vector, none, none, n_prompt=3, **options), Context()
        found = torch.cat([edit(context, part) for part in states.split([3, 1, 1])])  # a prompt and two more tokens
        assert [row for row in range(5) if not torch.equal(found[row], states[row])] == at
        torch.testing.assert_close(found[at], states[at] + vector)


def test_an_error_in_the_edit_is_counted_and_not_raised(chat):
    wide = torch.zeros(chat.d_model + 1)
    context = Context()
    edit = StreamEdit(wide, wide[None][:0], wide[None][:0], n_prompt=3)
    assert edit(context, torch.zeros(3, chat.d_model)) is None
    assert set(context.saved) == {"error"}


def test_what_cannot_be_applied_exactly_is_refused(chat, model, added, ablated):
    engine = backend(chat, model)
    everywhere = Condition("everywhere", (Ablation(random_direction(chat)),))
    heads = Condition("heads", (HeadReplacement(((0, 0),), (-1,), torch.zeros(1, 1, 12)),))
    both = Condition("both", (*added.interventions, *ablated.interventions))
    for condition, message in (
        (everywhere, "an ablation must name its layers"),
        (heads, "a condition must be one addition or ablation at most; got HeadReplacement"),
        (both, "a condition must be one addition or ablation at most; got Addition, Ablation"),
    ):
        with pytest.raises(ValueError, match=message):
            engine.check_condition(condition)


def test_the_gate_wants_twenty_prompts_a_condition_that_acts_and_every_kind(chat, model, added, ablated):
    engine = backend(chat, model)
    with pytest.raises(ValueError, match="check_parity: there must be 20 different prompts; got 19"):
        check_parity(chat, engine, PROMPTS[:19], added)
    nothing = Condition("nothing", (Addition(torch.zeros(chat.d_model), (1,)),))
    with pytest.raises(ValueError, match="check_parity: the condition must change a response"):
        check_parity(chat, engine, PROMPTS, nothing, N_NEW)
    checked = checked_backend(chat, engine, PROMPTS, [added], max_new_tokens=N_NEW)
    with pytest.raises(ValueError, match="must have been tested with every kind; got Ablation"):
        checked.generate(PROMPTS[:2], [ablated])


def test_the_plugin_must_be_installed_in_its_version(chat, monkeypatch):
    with pytest.raises(ValueError, match="load_vllm_lens: vllm-lens must be installed; got none"):
        load_vllm_lens(chat)
    for found in ("1.2.0", "1.4.0"):
        monkeypatch.setattr("refusal_utils.steering.backends.vllm_lens.version", lambda name, found=found: found)
        with pytest.raises(ValueError, match=f"load_vllm_lens: vllm-lens must be version 1.3.0; got {found}"):
            load_vllm_lens(chat)
