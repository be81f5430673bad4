"""A beginning that all prompts share is computed once for each way in which it is edited, and changes nothing."""

import pytest
import torch

from refusal_utils.directions.estimation import normalize
from refusal_utils.heads.replacement import forward_under, states_under
from refusal_utils.model.common_tokens import n_worth_sharing
from refusal_utils.steering import (
    UNSTEERED,
    Ablation,
    Addition,
    Condition,
    first_token_logits,
    generate,
)
from refusal_utils.steering import beginning as module
from refusal_utils.steering.interventions import HeadReplacement
from refusal_utils.steering.steered_states import steered_states

from .plain_edits import PlainEdit, plain_greedy

BEGIN = "Tell me in one short sentence, please, and without any list or title: "  # ten tokens or more
PROMPTS = [BEGIN + end for end in ("ok", "how do I boil an egg?", "the sea, and the ships", "a", "b", "c", "d", "why?")]
N_NEW, MOST_ERROR = 12, 1e-5  # of the norm: rounding in float32


@pytest.fixture
def shapes(monkeypatch) -> list[tuple[int, ...]]:
    """The shapes of the beginnings that are computed."""
    seen, forward = [], module.plain_forward
    monkeypatch.setattr(
        module,
        "plain_forward",
        lambda model, ids, *a, **k: seen.append(tuple(ids.shape)) or forward(model, ids, *a, **k),
    )
    return seen


def conditions_of(chat) -> list[Condition]:
    first, second = normalize(torch.randn(2, chat.d_model, generator=torch.Generator().manual_seed(3)))
    last = chat.n_layers - 1
    config = chat.bridge.original_model.config.get_text_config()
    d_head = getattr(config, "head_dim", None) or chat.d_model // config.num_attention_heads
    replaced = HeadReplacement(((last, 0), (0, 1)), (-1,), torch.ones(2, 1, d_head))
    return [
        UNSTEERED,
        Condition("added", (Addition(14 * first, (1,)),)),
        Condition("added late", (Addition(9 * second, (last,)),)),
        Condition("ablated", (Ablation(first[None]),)),
        Condition("prompt", (Addition(9 * first, (1, last), "prompt"),)),
        Condition("generation", (Addition(9 * first, (1,), "generation"),)),
        Condition("every third", (Addition(9 * second, (1,), every=3),)),
        Condition("heads", (replaced,)),
        Condition("heads and more", (replaced, Ablation(second[None], (last,), tokens="prompt"))),
    ]


def error(found, expected):
    return float(((found - expected).norm(dim=-1) / expected.norm(dim=-1)).max())


def test_responses_are_those_of_plain_hugging_face_one_prompt_at_a_time(chat, plain, plain_ids, shapes):
    conditions = conditions_of(chat)[:4]
    v, w = (conditions[index].interventions[0].vector for index in (1, 2))
    rows = generate(chat, PROMPTS, conditions, max_new_tokens=N_NEW, batch_tokens=700).set_index("condition")[
        "response"
    ]
    assert shapes
    assert min(width for _, width in shapes) >= 10

    def without(x):
        return x - (x @ v)[..., None] * v / 196

    assert rows.nunique() > 4
    for name, layers, edit, write in (
        ("unsteered", [], None, None),
        ("added", [1], lambda x: x + v, None),
        ("added late", [chat.n_layers - 1], lambda x: x + w, None),
        ("ablated", [0], without, without),
    ):
        with PlainEdit(plain, layers, edit, write):
            said = [plain_greedy(plain, plain_ids(prompt), N_NEW) for prompt in PROMPTS[::3]]
        assert rows[name].tolist()[::3] == [
            chat.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in said
        ], name


def test_every_kind_of_condition_gives_what_it_gives_to_one_prompt_alone(chat):
    alone = PROMPTS[-1:]
    for condition in conditions_of(chat):
        pairs = (
            (first_token_logits(chat, each, condition)[-1] for each in (PROMPTS, alone)),
            (steered_states(chat, each, condition, layer=-2)[-1] for each in (PROMPTS, alone)),
            (states_under(chat, each, [condition] * len(each))[-1] for each in (PROMPTS, alone)),
            (forward_under(chat, each, [condition] * len(each))[1][-1] for each in (PROMPTS, alone)),
        )
        assert all(error(*pair) < MOST_ERROR for pair in pairs), condition.name


@pytest.mark.parametrize("forced", [None, 5])
def test_the_same_prompt_many_times_is_answered_as_once(chat, forced):
    """All of it is what the prompts have in common, but for the template's ending, which each keeps for itself."""
    once, many = (
        generate(chat, each, conditions_of(chat), max_new_tokens=3, first_tokens=forced and [forced] * len(each))
        for each in ([PROMPTS[0]], [PROMPTS[0]] * 8)
    )
    assert many["response"].tolist() == [text for text in once["response"] for _ in range(8)]
    assert once["response"].nunique() > 1


def test_it_holds_in_every_family(random_chat):
    conditions = conditions_of(random_chat)
    together = generate(random_chat, PROMPTS, conditions, max_new_tokens=3)
    alone = generate(random_chat, PROMPTS[1:2], conditions, max_new_tokens=3)
    assert together.loc[together["prompt"] == 1, "response"].tolist() == alone["response"].tolist()


def test_a_beginning_is_computed_once_for_each_way_in_which_it_is_edited(chat, shapes):
    conditions = [each for each in conditions_of(chat) if each.name in ("ablated", "prompt", "generation", "heads")]
    ids = chat.encode(PROMPTS)
    n = n_worth_sharing(chat, ids, len(chat.suffix))
    generate(chat, PROMPTS, conditions, max_new_tokens=2, batch_tokens=10**6)
    by_layer = {each.first_layer(chat.n_layers) for each in conditions}
    assert [width for _, width in shapes] == [n] * len(by_layer)
    shapes.clear()
    heads = conditions_of(chat)[-2]
    own = [Condition(f"{index}", heads.interventions) for index in range(8)]
    generate(chat, PROMPTS, own, paired=True, max_new_tokens=2, batch_tokens=90)
    assert shapes == [(1, n)]  # heads are replaced after the beginning, so all conditions share it
    shapes.clear()
    generate(chat, PROMPTS, batch_tokens=90, max_new_tokens=2)
    assert shapes == [(1, n)]  # once for many batches
    shapes.clear()
    generate(chat, PROMPTS[:7], max_new_tokens=2)
    with chat.bridge.hooks(fwd_hooks=[(chat.hook_name("resid_pre", 2), lambda value, hook: value)]):
        generate(chat, PROMPTS, max_new_tokens=2)
    assert not shapes  # few prompts, or hooks from outside, which must see whole prompts
