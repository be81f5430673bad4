import pytest
import torch

from refusal_utils.directions.estimation import normalize
from refusal_utils.steering.contexts import intervene
from refusal_utils.steering.generation import generate
from refusal_utils.steering.interventions import Addition
from tests.contexts import ablate_direction, add_steering

from .plain_edits import PlainEdit, logits_of


@pytest.mark.parametrize("options", [{}, {"tokens": "prompt"}, {"every": 2}])
@pytest.mark.parametrize("context", [add_steering, ablate_direction])
@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_leaving_a_context_restores_the_logits_bitwise(chat, prompts, direction, context, options, error):
    before = logits_of(chat, prompts[:3])
    n_hooks = len(chat.bridge.original_model._forward_pre_hooks)
    try:
        with context(chat, direction, **options):
            assert not torch.equal(logits_of(chat, prompts[:3]), before)
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt):
        pass
    assert torch.equal(logits_of(chat, prompts[:3]), before)
    assert len(chat.bridge.original_model._forward_pre_hooks) == n_hooks
    assert not any(point.fwd_hooks for point in chat.bridge.hook_dict.values())


def test_adding_zero_is_the_unsteered_model(chat, prompts, direction):
    before = logits_of(chat, prompts[:3])
    with add_steering(chat, 0 * direction):
        assert torch.equal(logits_of(chat, prompts[:3]), before)


def test_add_steering_equals_the_same_edit_in_plain_hugging_face(chat, prompts, plain, plain_ids, direction):
    unsteered = logits_of(chat, prompts[:4])
    with add_steering(chat, 4 * direction, layer=3):
        steered = logits_of(chat, prompts[:4])
    assert float((steered - unsteered).abs().max()) > 1e-2  # before control: the edit does something
    with PlainEdit(plain, [3], lambda hidden: hidden + 4 * direction), torch.no_grad():
        for prompt, row in zip(prompts[:4], steered, strict=True):
            torch.testing.assert_close(row, plain(plain_ids(prompt)).logits[0, -1], atol=2e-5, rtol=0)


def test_ablate_direction_equals_the_same_edit_in_plain_hugging_face(chat, prompts, plain, plain_ids, direction):
    with ablate_direction(chat, direction):
        ours = logits_of(chat, prompts[:4])

    def remove(hidden):
        return hidden - (hidden @ direction)[..., None] * direction

    with PlainEdit(plain, [0], remove, remove), torch.no_grad():
        for prompt, row in zip(prompts[:4], ours, strict=True):
            torch.testing.assert_close(row, plain(plain_ids(prompt)).logits[0, -1], atol=2e-5, rtol=0)


def test_ablating_a_span_does_not_depend_on_the_directions_that_name_it(chat, prompts, direction):
    second = normalize(direction + 0.2 * torch.randn(chat.d_model, generator=torch.Generator().manual_seed(6)))
    with ablate_direction(chat, torch.stack([direction, second])):
        one_way = logits_of(chat, prompts[:3])
    with ablate_direction(chat, torch.stack([second, normalize(direction - second)])):
        other_way = logits_of(chat, prompts[:3])
    torch.testing.assert_close(one_way, other_way, atol=1e-3, rtol=1e-3)


def test_generation_inside_a_context_equals_plain_hugging_face_token_for_token(
    chat, prompts, plain, plain_ids, direction
):
    with add_steering(chat, 6 * direction, layer=4):
        ours = generate(chat, prompts[:4], max_new_tokens=20)["response"]
    with PlainEdit(plain, [4], lambda hidden: hidden + 6 * direction):
        for prompt, response in zip(prompts[:4], ours, strict=True):
            ids = plain_ids(prompt)
            out = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False)
            assert chat.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip() == response


def test_contexts_nest_and_add_up(chat, prompts, direction, other):
    with add_steering(chat, 4 * direction, 3), add_steering(chat, 2 * other, 3):
        nested = logits_of(chat, prompts[:2])
    with intervene(chat, Addition(4 * direction, (3,)), Addition(2 * other, (3,))):
        torch.testing.assert_close(logits_of(chat, prompts[:2]), nested, atol=2e-5, rtol=0)
