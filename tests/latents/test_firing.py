"""Firing and overlap: rates and separations by hand, planted latents found, and nulls at chance."""

import pytest
import torch

from refusal_utils.latents import Firing, latent_firing, latent_overlap

from .sae_files import D_MODEL, N, sae

SIDES = ("advice", "humanizing", "unsupported")


def identity_sae(d_model=16):
    """Latent j is coordinate j, firing above 0.5."""
    eye = torch.eye(d_model)
    return sae(
        w_enc=eye,
        w_dec=eye,
        b_enc=torch.zeros(d_model),
        b_dec=torch.zeros(d_model),
        threshold=torch.full((d_model,), 0.5),
    )


def planted(n=60, d_model=16, seed=0):
    """Latent 0 fires on all refused sides, 1 to 3 on one each; all others on a fifth of all prompts."""
    generator = torch.Generator().manual_seed(seed)
    sides = {name: (torch.rand(n, d_model, generator=generator) < 0.2).float() for name in (*SIDES, "benign")}
    for number, name in enumerate(SIDES):
        sides[name][:, 0] = 1.0
        sides[name][:, 1 + number] = 1.0
    for each in sides.values():
        each[:, -2:] = 0.0
    return sides


def test_rates_and_separations_are_shares_of_prompts():
    sides = {
        name: 2 * torch.randn(9, D_MODEL, generator=torch.Generator().manual_seed(len(name)))
        for name in ("advice", "benign")
    }
    own, firing = sae(), latent_firing(sae(), sides, n_batch=4)
    for name, states in sides.items():
        shares = [sum(float(own.encode(x)[j]) > 0 for x in states) / 9 for j in range(N)]
        torch.testing.assert_close(firing.rates(name), torch.tensor(shares))
        assert torch.equal(firing.fires[name], own.encode(states) > 0)
    torch.testing.assert_close(firing.separation("advice"), firing.rates("advice") - firing.rates("benign"))


def test_planted_latents_come_first_and_latents_that_never_fire_are_in_no_list():
    firing = latent_firing(identity_sae(), planted())
    for number, name in enumerate(SIDES):
        assert set(firing.top(name, 2)) == {0, 1 + number}
        assert not {14, 15} & set(firing.top(name, 16))
    assert firing.table().loc["benign", "ever fire"] == 14


def test_overlap_counts_lists_and_exceeds_chance_only_where_it_is_planted():
    overlap = latent_overlap(latent_firing(identity_sae(), planted(n=200)), 2, n_draws=100)
    table = overlap.table()
    assert table.loc["in all 3 lists", "found"] == 1
    assert table.loc["in at least one list", "found"] == 4
    assert table.loc["in all 3 lists", "same firing rates"] <= 1
    assert overlap.unique().tolist() == [1, 1, 1]
    assert overlap.listed().tolist() == [2, 2, 2]
    assert (overlap.pairs().to_numpy() == 0.5 + 0.5 * torch.eye(3).numpy()).all()


def test_lists_that_are_filled_up_share_the_latents_that_never_fire():
    """Latent 0 fires on all refused sides, 1 to 3 on one each, the other 12 never."""
    fires = {name: torch.zeros(4, 16, dtype=torch.bool) for name in (*SIDES, "benign")}
    for number, name in enumerate(SIDES):
        fires[name][:, [0, 1 + number]] = True
    firing = Firing(fires, "benign")
    table = firing.filled([1, 2, 8, 16])
    # Every list of 8 ends with the lowest numbers that do not tell its side apart: 1 to 3 of other sides, then 4 to 7.
    assert table["in all lists"].tolist() == [1, 1, 8, 16]
    assert table["of these never fire"].tolist() == [0, 0, 4, 12]
    assert len(firing.top("advice", 8)) == 2  # before control: a list of positive separations is not filled


def test_with_random_labels_what_is_found_is_what_the_null_gives():
    generator = torch.Generator().manual_seed(3)
    sides = {name: (torch.rand(100, 64, generator=generator) < 0.3).float() for name in (*SIDES, "benign")}
    eye = torch.eye(64)
    own = sae(w_enc=eye, w_dec=eye, b_enc=torch.zeros(64), b_dec=torch.zeros(64), threshold=torch.full((64,), 0.5))
    table = latent_overlap(latent_firing(own, sides), 20, n_draws=200).table()
    for row in table.to_dict("records"):
        assert row["labels permuted low"] <= row["found"] <= row["labels permuted high"]


def test_the_same_seed_gives_the_same_overlap():
    firing = latent_firing(identity_sae(), planted())
    first, again, other = (latent_overlap(firing, 4, n_draws=20, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(first.counts[name], again.counts[name]) for name in first.counts)
    assert any(not torch.equal(first.counts[name], other.counts[name]) for name in first.counts)


def test_figures_have_a_line_for_each_side_and_for_each_null():
    firing = latent_firing(identity_sae(), planted())
    assert len(firing.figure().data) == len(SIDES)
    assert len(latent_overlap(firing, 4, n_draws=5).figure().data) == 3


def test_bad_input_is_one_sentence():
    states = planted()
    with pytest.raises(ValueError, match="^latent_firing: answered must be one of"):
        latent_firing(identity_sae(), states, answered="harmless")
    with pytest.raises(ValueError, match="^latent_firing: another side"):
        latent_firing(identity_sae(), {"benign": states["benign"]})
    with pytest.raises(ValueError, match="^latent_firing: every side"):
        latent_firing(identity_sae(), {**states, "advice": states["advice"][:0]})
    with pytest.raises(ValueError, match="^latent_firing: states must be finite"):
        latent_firing(identity_sae(), {**states, "advice": states["advice"] / 0})
    with pytest.raises(ValueError, match="^latent_overlap: k must be"):
        latent_overlap(latent_firing(identity_sae(), states), 0)
