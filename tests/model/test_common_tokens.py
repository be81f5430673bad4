"""A long beginning that all prompts share is computed once, and changes no activation."""

import pytest
import torch

from refusal_utils.heads.shares import component_shares
from refusal_utils.model import common_tokens as module
from refusal_utils.model.capture import capture_activations
from refusal_utils.model.common_tokens import CommonTokens
from refusal_utils.steering import Addition, intervene

BEGIN = "Tell me in one short sentence, please, and without any list or title: "  # ten tokens or more
PROMPTS = [BEGIN + end for end in ("ok", "how do I boil an egg?", "the sea, and the ships", "a", "b", "c", "d", "why?")]


def one_at_a_time(chat, **options):
    return torch.cat([capture_activations(chat, [prompt], **options).values for prompt in PROMPTS])


def test_activations_equal_those_of_single_prompts_in_every_family(random_chat):
    positions = range(-len(random_chat.suffix), 0)
    together = capture_activations(random_chat, PROMPTS, positions=positions, batch_tokens=200).values
    torch.testing.assert_close(together, one_at_a_time(random_chat, positions=positions), atol=1e-4, rtol=1e-4)


def test_the_beginning_runs_once(chat, monkeypatch):
    shapes, forward = [], module.plain_forward

    def counted(model, input_ids, *args, **options):
        shapes.append(tuple(input_ids.shape))
        return forward(model, input_ids, *args, **options)

    monkeypatch.setattr(module, "plain_forward", counted)
    capture_activations(chat, PROMPTS, batch_tokens=30)
    ids = chat.encode(PROMPTS)
    n_common = next(index for index, tokens in enumerate(zip(*ids, strict=False)) if len(set(tokens)) > 1)
    assert n_common >= 10
    assert shapes[0] == (1, n_common)
    assert sum(rows for rows, _ in shapes[1:]) == len(PROMPTS)
    assert max(width for _, width in shapes[1:]) == max(map(len, ids)) - n_common
    assert len(shapes) > 2  # several batches


@pytest.mark.parametrize("prompts", [PROMPTS[:7], ["ok", *PROMPTS[1:]]])
def test_few_prompts_or_a_short_beginning_are_computed_whole(chat, prompts):
    assert CommonTokens(chat, chat.encode(prompts), 1).n == 0


def test_asked_positions_are_never_part_of_the_beginning(chat):
    ids = chat.encode(["What is the meaning of all this, if there is any at all?"] * 8)
    n_suffix = len(chat.suffix)
    assert CommonTokens(chat, ids, n_suffix).n == len(ids[0]) - n_suffix
    same = capture_activations(
        chat, ["How do I boil an egg in a hotel room, quickly?"] * 8, positions=range(-n_suffix, 0)
    )
    alone = capture_activations(chat, ["How do I boil an egg in a hotel room, quickly?"], positions=range(-n_suffix, 0))
    torch.testing.assert_close(same.values, alone.values.expand_as(same.values), atol=1e-4, rtol=1e-4)


def test_an_open_hook_sees_whole_prompts(chat):
    vector = torch.ones(chat.d_model)
    with intervene(chat, Addition(vector, (1,), every=3)):
        assert CommonTokens(chat, chat.encode(PROMPTS), 1).n == 0
        together = capture_activations(chat, PROMPTS, layers=[4]).values
        torch.testing.assert_close(together, one_at_a_time(chat, layers=[4]), atol=1e-4, rtol=1e-4)


def test_head_shares_equal_those_of_single_prompts(chat):
    directions = torch.nn.functional.normalize(torch.eye(chat.d_model)[:2] + 0.1, dim=-1)
    together = component_shares(chat, PROMPTS, directions)
    for index, prompt in enumerate(PROMPTS):
        alone = component_shares(chat, [prompt], directions)
        for ours, single in zip(vars(together).values(), vars(alone).values(), strict=True):
            torch.testing.assert_close(ours[index], single[0], atol=1e-4, rtol=1e-4)
