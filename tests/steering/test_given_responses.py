"""Logits of given responses: those of plain Hugging Face, one response at a time and without padding."""

from functools import partial

import torch

from refusal_utils.steering import Ablation, Addition, beginning, generate
from refusal_utils.steering import given_responses as module
from refusal_utils.steering.given_responses import GivenResponse, response_logits
from refusal_utils.steering.interventions import HeadReplacement

from .plain_edits import PlainEdit


def test_every_row_has_the_logits_of_plain_hugging_face_under_its_own_edit(chat, plain, prompts):
    v = torch.nn.functional.normalize(torch.randn(chat.d_model, generator=torch.Generator().manual_seed(0)), dim=0)
    tails = [[5, 6, 7], [8], [9, 10], [5, 6, 7]]
    given = [
        GivenResponse([*ids, *tail], len(tail))
        for ids, tail in zip(chat.encode([*prompts[:3], prompts[0]]), tails, strict=True)
    ]
    rows = [[Ablation(v[None])], [Addition(3 * v, (4,))], [], [Addition(3 * v, (4,))]]
    with torch.no_grad():
        found = response_logits(chat, given, rows)
    assert found.is_real.sum(-1).tolist() == [3, 1, 2, 3]

    def without(x):
        return x - (x @ v)[..., None] * v

    def check(row):
        ids, n = given[row].ids, given[row].n_response
        with torch.no_grad():
            wanted = plain(torch.tensor([ids])).logits[0, -n - 1 : -1]
        assert found.tokens[row, -n:].tolist() == ids[-n:]
        torch.testing.assert_close(found.logits[row, -n:], wanted, atol=2e-4, rtol=1e-4)

    check(2)
    with PlainEdit(plain, range(chat.n_layers), without, without):
        check(0)
    with PlainEdit(plain, [4], lambda x: x + 3 * v):
        check(1)
        check(3)
    assert not torch.allclose(found.logits[0], found.logits[3], atol=0.01)  # control


def test_what_all_prompts_begin_with_is_computed_once_with_the_same_logits_and_gradient(chat, monkeypatch):
    begin = "Tell me about the sea, please, and about the ships that cross it in winter when the wind is up, and"
    ids = chat.encode([f"{begin} {end}" for end in ("about tea", "why", "what a cat called Tom thinks of it")])
    given = [GivenResponse([*own, *tail], len(tail)) for own, tail in zip(ids, ([5, 6], [8], [9, 10, 11]), strict=True)]
    start = torch.nn.functional.normalize(torch.randn(chat.d_model, generator=torch.Generator().manual_seed(0)), dim=0)
    n_begin = module.n_common(chat, ids)
    assert n_begin >= 16
    passes = []
    for place, name in ((module, "forward"), (beginning, "plain_forward")):
        forward = getattr(place, name)
        counted = lambda chat, ids, *a, run=forward, **k: passes.append(ids.shape) or run(chat, ids, *a, **k)  # noqa: E731
        monkeypatch.setattr(place, name, counted)

    def run(edit, is_shared):
        leaf = start.clone().requires_grad_()
        edits = [edit(leaf)]
        rows = [edits] * 3 if is_shared else [[*edits] for _ in range(3)]
        found = response_logits(chat, given, rows)
        total = found.mean(found.logits.log_softmax(-1)[..., 7]).sum()
        return found.logits[found.is_real].detach(), torch.autograd.grad(total, leaf)[0]

    for edit in (lambda v: Ablation(v[None]), lambda v: Addition(3 * v, (4,))):
        passes.clear()
        once, apart = run(edit, True), run(edit, False)
        assert [shape[1] for shape in passes] == [n_begin, passes[2][1] - n_begin, passes[2][1]]
        torch.testing.assert_close(once[0], apart[0], atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(once[1], apart[1], atol=1e-4, rtol=1e-3)


def test_responses_to_one_prompt_that_begin_alike_have_the_logits_of_plain_hugging_face(chat, plain):
    """What is computed once ends before the template's ending, however much more the texts share."""
    begin = "Tell me about the sea, please, and about the ships that cross it in winter when the wind is up"
    [ids] = chat.encode([begin])
    given = [GivenResponse([*ids, 5, 6, 7, last], 4) for last in (8, 9)]
    rows = [[]] * 2
    assert module.n_common(chat, [each.ids for each in given]) == len(ids) + 3
    with torch.no_grad():
        found = response_logits(chat, given, rows)
        for row, each in enumerate(given):
            wanted = plain(torch.tensor([each.ids])).logits[0, -5:-1]
            torch.testing.assert_close(found.logits[row], wanted, atol=2e-4, rtol=1e-4)


def test_heads_are_replaced_at_the_end_of_the_prompt_and_not_of_the_response(chat, plain, prompts):
    """By a hook of PyTorch on what the output matrix of plain Hugging Face reads; a response follows the prompt."""
    tails, d_head = [[5, 6, 7], [8, 9]], chat.d_model // 6
    prompt_ids = chat.encode(prompts[:2])
    given = [GivenResponse([*ids, *tail], len(tail)) for ids, tail in zip(prompt_ids, tails, strict=True)]
    values = 3 * torch.randn(1, 2, d_head, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        found = response_logits(chat, given, [[HeadReplacement(((4, 1),), (-3, -1), values)]] * 2)

    def replaced(module, args, n_prompt):
        z = args[0].clone()
        for own, pos in zip(values[0], (-3, -1), strict=True):
            z[0, n_prompt + pos, d_head : 2 * d_head] = own
        return (z,)

    for row, (ids, tail) in enumerate(zip(prompt_ids, tails, strict=True)):
        text = torch.tensor([[*ids, *tail]])
        read = plain.model.layers[4].self_attn.o_proj
        handle = read.register_forward_pre_hook(partial(replaced, n_prompt=len(ids)))
        with torch.no_grad():
            wanted = plain(text).logits[0, -len(tail) - 1 : -1]
            handle.remove()
            unchanged = plain(text).logits[0, -len(tail) - 1 : -1]
        torch.testing.assert_close(found.logits[row, -len(tail) :], wanted, atol=2e-4, rtol=1e-4)
        assert float((wanted - unchanged).abs().max()) > 1e-2  # before control


def test_the_mean_is_over_real_tokens_only(chat, prompts):
    ids = chat.encode(prompts[:2])
    given = [GivenResponse([*ids[0], 5, 6, 7, 8], 4), GivenResponse([*ids[1], 5], 1)]
    with torch.no_grad():
        found = response_logits(chat, given, [[], []])
    values = torch.tensor([[1.0, 2.0, 3.0, 6.0], [torch.inf, torch.inf, torch.inf, 5.0]])
    assert found.mean(values).tolist() == [3.0, 5.0]


def test_generated_ids_are_those_of_the_response(chat, prompts):
    rows = generate(chat, prompts[:3], max_new_tokens=6, tokens=True)
    texts = [chat.tokenizer.decode(list(ids), skip_special_tokens=True).strip() for ids in rows["tokens"]]
    assert texts == rows["response"].tolist()
    assert [len(ids) + stopped for ids, stopped in zip(rows["tokens"], rows["stopped"], strict=True)] == [
        *rows["n_tokens"]
    ]
    assert "tokens" not in generate(chat, prompts[:1], max_new_tokens=2)
