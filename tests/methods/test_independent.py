"""Representational independence: profiles and their gradient by independent routes, and directions that satisfy it."""

from contextlib import nullcontext

import pandas as pd
import pytest
import torch

from refusal_utils.directions import DirectionSet, Provenance
from refusal_utils.methods import independent
from refusal_utils.methods.independent import cosine_profiles, dependence, orthogonal_to
from refusal_utils.methods.rdo import random_rows

from ..steering.plain_edits import PlainEdit
from .test_rdo import SMALL

QUICK = {"n_updates": 2, "n_prompts": 4, "rate": 0.03}


@pytest.fixture(scope="module")
def pair(chat):
    """Two directions with a cosine of about 0.5: unrelated ones hardly change each other's profile."""
    vectors = random_rows(2, chat.d_model, 7)
    vectors = torch.nn.functional.normalize(vectors + torch.tensor([[0.0], [0.6]]) * vectors[:1], dim=-1)
    return DirectionSet(("u", "v"), vectors, torch.ones(2), Provenance(3))


def plain_cosines(chat, plain, prompts, ablated, direction):
    """Mean cosine per layer from hidden states of plain Hugging Face; they are the inputs of the blocks."""

    def without(x):
        return x - (x @ ablated)[..., None] * ablated

    found = []
    for ids in chat.encode(prompts):
        edit = nullcontext() if ablated is None else PlainEdit(plain, range(chat.n_layers), without, without)
        with edit, torch.no_grad():
            hidden = plain(torch.tensor([ids]), output_hidden_states=True).hidden_states
        seen = torch.stack([each[0, -1] for each in hidden[:-1]])
        found.append(torch.cosine_similarity(seen if ablated is None else without(seen), direction[None], dim=-1))
    return torch.stack(found)


def test_profiles_are_those_of_plain_hugging_face(chat, plain, prompts, pair):
    found = cosine_profiles(chat, prompts[:3], pair)
    u, v = pair.vectors
    torch.testing.assert_close(
        found.plain[1], plain_cosines(chat, plain, prompts[:3], None, v).mean(0), atol=1e-4, rtol=0
    )
    wanted = plain_cosines(chat, plain, prompts[:3], u, v).mean(0)
    torch.testing.assert_close(found.ablated[0, 1], wanted, atol=1e-4, rtol=0)
    assert found.ablated[0, 0].abs().max() < 1e-4  # an ablated direction has no profile
    assert (found.ablated[0, 1] - found.plain[1]).abs().max() > 0.01  # control
    assert len(found.table()) == 3 * 2 * chat.n_layers
    assert found.shifts().loc["u", "v"] == pytest.approx(
        float((wanted - found.plain[1])[:7].square().mean().sqrt()), abs=1e-4
    )
    pairs = found.pairs()
    assert list(pairs.index) == [("u", "v"), ("v", "u")]
    size = float(found.plain[1, :7].square().mean().sqrt())
    assert pairs.loc[("u", "v"), "share"] == pytest.approx(found.shifts().loc["u", "v"] / size, rel=1e-4)
    assert len(found.figure(title="t").data) == 4
    assert len(found.figure("u", title="t").data) == 1
    assert found.map(title="t").data


def test_dependence_is_the_sum_of_both_changes_and_has_their_gradient(chat, plain, prompts, pair):
    u, v = pair.vectors
    ids = chat.encode(prompts[:2])
    values = []
    for ablated, direction in ((u, v), (v, u)):
        change = plain_cosines(chat, plain, prompts[:2], ablated, direction)
        change = change - plain_cosines(chat, plain, prompts[:2], None, direction)
        values.append(change[:, :7].square().sum(1).mean())
    leaf = v.clone().requires_grad_()
    found = dependence(chat, ids, leaf, u[None])
    assert float(found.detach()) == pytest.approx(float(sum(values)), rel=1e-3)
    (slope,) = torch.autograd.grad(found, leaf)
    along = torch.nn.functional.normalize(slope - (slope @ v) * v, dim=0)
    with torch.no_grad():
        up, down = (
            dependence(chat, ids, torch.nn.functional.normalize(v + step * along, dim=0), u[None])
            for step in (0.01, -0.01)
        )
    assert float(slope @ along) == pytest.approx(float(up - down) / 0.02, rel=0.05)


@pytest.mark.slow
def test_a_direction_that_is_independent_costs_less_dependence(chat, train, cache):
    """With independence alone, the second direction's dependence falls; the first is that of the same training."""
    how = {**SMALL, **QUICK, "n_updates": 3, "rate": 0.06, "cache_dir": cache}
    free, bound = (independent.independent(chat, train, independence=weight, **how) for weight in (0.0, 1e5))
    assert torch.equal(free.found[0].direction, bound.found[0].direction)
    ids = chat.encode(bound.training.candidates.refused_val)
    with torch.no_grad():
        values = [
            float(dependence(chat, ids, each.found[1].direction, each.found[0].direction[None]))
            for each in (free, bound)
        ]
    assert values[1] < 0.7 * values[0]
    assert list(bound.directions(Provenance(3, -3))) == ["independent_1", "independent_2"]


def test_the_orthogonal_variant_is_orthogonal_to_all_before_it(chat, train, cache):
    found = independent.independent(chat, train, k=3, orthogonal=True, cache_dir=cache, **SMALL, **QUICK)
    vectors = torch.stack([each.direction for each in found.found])
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(3), atol=1e-4, rtol=0)


def test_orthogonal_to_leaves_unit_rows_outside_the_span():
    others, rows = random_rows(2, 12, 1), random_rows(3, 12, 2)
    apart = orthogonal_to(others, rows)
    torch.testing.assert_close(apart @ others.T, torch.zeros(3, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(apart.norm(dim=-1), torch.ones(3))
    assert (rows @ others.T).abs().max() > 0.1  # control


def test_bad_input_is_one_sentence(chat):
    with pytest.raises(ValueError, match="^independent: k must be at least 1; got 0"):
        independent.independent(chat, pd.DataFrame(), k=0)
