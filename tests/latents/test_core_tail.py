"""Core and tail: parts by hand, equal displacement, voices, and intervals of shares."""

import pandas as pd
import pytest
import torch

from refusal_utils.latents import SparseAutoencoder, latent_firing, latent_overlap
from refusal_utils.latents.core_tail import (
    CORE,
    LIST,
    NOTHING,
    RANDOM,
    RANDOM_LIST,
    TAIL,
    PartEffects,
    Voices,
    displacement,
    part_effects,
    zeroed_parts,
)
from refusal_utils.latents.overlap import overlap_by_size
from refusal_utils.steering.latent_edits import latent_shift

from .test_firing import SIDES, identity_sae, planted

ALL = [NOTHING, LIST, RANDOM_LIST, "core once", "tail once", CORE, TAIL, RANDOM]


@pytest.fixture(scope="module")
def parts():
    sides = planted(n=200)
    firing = latent_firing(identity_sae(), sides)
    return sides, firing, latent_overlap(firing, 2, n_draws=5)


def test_the_shared_latent_is_the_core_and_each_sides_own_is_its_tail(parts):
    _, _, overlap = parts
    assert overlap.core(3) == [0]
    assert [overlap.tail(name) for name in SIDES] == [[1], [2], [3]]


def test_parts_displace_states_equally_far_and_leave_other_latents(parts):
    sides, firing, overlap = parts
    sides = {name: each.clone() for name, each in sides.items()}
    for each in sides.values():
        each[:, 0] *= 3.0  # the core writes three times as much
    sae = identity_sae()
    conditions = zeroed_parts(sae, overlap, firing, sides, least=3)
    for name in SIDES:
        own = conditions[name]
        assert list(own) == ALL
        lengths = {
            part: float(latent_shift(own[part].interventions[0], sides[name]).norm(dim=1).mean())
            for part in (CORE, TAIL)
        }
        whole = displacement(sae, overlap.lists[name], sides[name])
        assert lengths == pytest.approx({CORE: whole, TAIL: whole})
        assert float(latent_shift(own["tail once"].interventions[0], sides[name]).norm(dim=1).mean()) == pytest.approx(
            1.0
        )
        assert displacement(sae, [0], sides[name]) == pytest.approx(3.0)
        assert own[RANDOM].interventions[0].w_enc.shape[1] == 1
    with pytest.raises(ValueError, match="zeroed_parts: some latents must be in 4 lists"):
        zeroed_parts(sae, overlap, firing, sides, least=4)


def test_overlap_against_the_length_of_lists_agrees_with_single_overlaps(parts):
    _, firing, _ = parts
    curve = overlap_by_size(firing, [1, 2], n_draws=20)
    table = curve.table()
    assert len(curve.figure().data) == 6
    assert table.loc[(1, 2), "found"] == 4
    assert table.loc[(3, 2), "found"] == 1
    assert table.loc[(3, 2), "labels permuted high"] <= table.loc[(1, 2), "labels permuted high"]


def test_a_voice_is_the_category_whose_refusals_use_these_words():
    texts = {"advice": "I am not a doctor, please ask one", "humanizing": "I am software without any feelings"}
    rows = pd.DataFrame([(name, f"{text} {n}", "refused") for name, text in texts.items() for n in range(5)])
    voices = Voices.of(rows.set_axis(["category", "response", "outcome"], axis=1))
    assert voices.heard(["please ask a doctor", "I have no feelings", ""])[:2] == ["advice", "humanizing"]
    assert voices.heard([]) == []
    said = [("tail advice", "ask a doctor"), ("tail advice", "no feelings"), ("core", "ask a doctor")]
    own = voices.own(pd.DataFrame(said, columns=["name", "response"]).assign(outcome="refused"))
    assert own["tail advice"] == 0.5
    assert pd.isna(own["core"])


def test_shares_differences_and_intervals_are_those_of_the_rows():
    refused = {CORE: [False] * 30 + [True] * 10, TAIL: [True] * 40}
    voice = {CORE: [None] * 30 + [True] * 10, TAIL: [True] * 10 + [False] * 30}
    frames = [
        pd.DataFrame(
            {"id": range(40), "category": "advice", "part": part, "refused": refused[part], "own voice": voice[part]}
        )
        for part in refused
    ]
    effects = PartEffects(pd.concat(frames))
    table, difference = effects.table(), effects.difference(CORE, TAIL)
    assert table["refused"].to_dict() == {CORE: 0.25, TAIL: 1.0}
    assert table["own voice"].to_dict() == {CORE: 1.0, TAIL: 0.25}
    assert difference.loc["refused", "difference"] == -0.75
    assert difference.loc["refused", "low"] < -0.75 < difference.loc["refused", "high"] < 0
    assert effects.predictions()["prediction"].tolist() == ["holds", "holds"]
    swapped = PartEffects(effects.rows.assign(part=effects.rows["part"].map({CORE: TAIL, TAIL: CORE})))
    assert swapped.predictions()["prediction"].tolist() == ["refuted", "refuted"]
    assert effects.figure().data


def test_clamping_runs_every_prompt_under_its_own_categorys_condition(chat):
    eye = torch.eye(chat.d_model)
    sae = SparseAutoencoder(
        eye, torch.zeros(chat.d_model), eye, torch.zeros(chat.d_model), 5, threshold=torch.zeros(chat.d_model)
    )
    states = {
        name: torch.randn(20, chat.d_model, generator=torch.Generator().manual_seed(n))
        for n, name in enumerate(("advice", "humanizing", "benign"))
    }
    firing = latent_firing(sae, states)
    conditions = zeroed_parts(sae, latent_overlap(firing, 40, n_draws=2), firing, states, least=2)
    prompts = pd.DataFrame(
        {"id": ["a", "b"], "category": ["advice", "humanizing"], "text": ["How do I invest?", "Do you feel?"]}
    )
    refusals = pd.DataFrame(
        {"category": ["advice", "humanizing"], "response": ["ask a doctor", "no feelings"], "outcome": "refused"}
    )
    found = part_effects(chat, prompts, conditions, Voices.of(refusals), max_new_tokens=4)
    asked = found.rows.groupby("part")["id"].apply(list)
    assert [asked[part] for part in ALL] == [["a", "b"]] * len(ALL)
