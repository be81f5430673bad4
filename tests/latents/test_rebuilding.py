"""Rebuilding directions: planted mixtures are found, curves never fall, and random rows are at chance."""

import itertools

import pytest
import torch

from refusal_utils.directions import DirectionSet, Provenance
from refusal_utils.latents import latent_alignment, latent_firing, rebuild_directions

from .sae_files import D_MODEL, LAYER, N, sae

HOW = "matching pursuit"


@pytest.fixture(scope="module")
def firing():
    generator = torch.Generator().manual_seed(5)
    return latent_firing(
        sae(), {name: 2 * torch.randn(40, D_MODEL, generator=generator) for name in ("advice", "humanizing", "benign")}
    )


def as_directions(*vectors, layer=LAYER + 1):
    stacked = torch.stack([v / v.norm() for v in vectors])
    return DirectionSet(
        ("advice", "humanizing")[: len(vectors)], stacked, torch.ones(len(vectors)), Provenance(layer=layer)
    )


def cosines(rebuilding, how, direction="advice"):
    rows = rebuilding.rows
    return rows[(rows["how"] == how) & (rows["direction"] == direction)]["cosine"].tolist()


def test_one_row_is_the_one_with_the_largest_cosine(firing):
    v = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(6))
    rows = sae().w_dec
    best = max(abs(float(row @ v)) / float(row.norm() * v.norm()) for row in rows)
    assert cosines(rebuild_directions(sae(), as_directions(v), firing, sizes=(1,)), HOW) == pytest.approx(
        [best], abs=1e-5
    )


def test_a_mixture_of_two_orthogonal_rows_needs_two_latents():
    eye = torch.eye(D_MODEL)
    own = sae(
        w_enc=eye, w_dec=3 * eye, b_enc=torch.zeros(D_MODEL), b_dec=torch.zeros(D_MODEL), threshold=torch.zeros(D_MODEL)
    )
    sides = {
        "advice": torch.ones(5, D_MODEL) * torch.tensor([1.0, 1.0] + [-1.0] * 6),
        "benign": -torch.ones(5, D_MODEL),
    }
    v = 4 * eye[0] + 3 * eye[1]
    found = rebuild_directions(own, as_directions(v), latent_firing(own, sides), sizes=(1, 2, 3))
    assert cosines(found, HOW) == pytest.approx([0.8, 1.0, 1.0], abs=1e-5)
    assert cosines(found, "best separation, fitted") == pytest.approx([0.8, 1.0, 1.0], abs=1e-5)
    assert cosines(found, "best separation, mean row") == pytest.approx([0.8, 7 / 50**0.5, 7 / 50**0.5], abs=1e-5)


def test_no_two_rows_do_better_than_all_pairs_and_fits_never_fall(firing):
    v = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(7)).double()
    own = sae()
    found = rebuild_directions(own, as_directions(v.float()), firing, sizes=(1, 2, 4, 8))
    best = 0.0
    for pair in itertools.combinations(range(N), 2):
        rows = own.w_dec[list(pair)].double()
        fit = rows.T @ torch.linalg.lstsq(rows.T, v).solution
        best = max(best, float(fit @ v / (fit.norm() * v.norm())))
    assert cosines(found, HOW)[1] <= best + 1e-6
    for how in (HOW, "best separation, fitted", "random latents, fitted"):
        curve = cosines(found, how)
        assert all(later >= earlier - 1e-6 for earlier, later in itertools.pairwise(curve))
    assert cosines(found, HOW)[-1] == pytest.approx(1.0, abs=1e-5)


def test_random_latents_explain_their_share_of_the_dimensions():
    generator = torch.Generator().manual_seed(8)
    d_model, n = 64, 256
    rows = torch.randn(n, d_model, generator=generator)
    own = sae(w_enc=rows.T, w_dec=rows, b_enc=torch.zeros(n), b_dec=torch.zeros(d_model), threshold=torch.zeros(n))
    firing = latent_firing(own, {name: torch.randn(30, d_model, generator=generator) for name in ("advice", "benign")})
    squares = [
        cosines(
            rebuild_directions(
                own, as_directions(torch.randn(d_model, generator=generator)), firing, sizes=(16,), seed=s
            ),
            "random latents, fitted",
        )[0]
        ** 2
        for s in range(30)
    ]
    assert sum(squares) / 30 == pytest.approx(16 / 64, abs=0.04)


def test_alignment_is_the_cosine_with_what_the_latents_write():
    own, which = sae(), [0, 3, 9]
    states = 2 * torch.randn(12, D_MODEL, generator=torch.Generator().manual_seed(9))
    v = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(10))
    found = latent_alignment(own, states, which, v)
    for x, cosine in zip(states, found, strict=True):
        written = sum(float(own.encode(x)[j]) * own.w_dec[j] for j in which)
        expected = (
            torch.nn.functional.cosine_similarity(written, v, dim=0) if written.norm() > 0 else torch.tensor(torch.nan)
        )
        torch.testing.assert_close(cosine, expected, equal_nan=True, atol=1e-5, rtol=1e-5)
    assert torch.isnan(latent_alignment(own, torch.zeros(1, D_MODEL) - own.b_enc.mean(), [], v)).all()


def test_bad_input_is_one_sentence(firing):
    v = torch.ones(D_MODEL)
    with pytest.raises(ValueError, match="^rebuild_directions: this SAE reads resid_post of layer"):
        rebuild_directions(sae(), as_directions(v, layer=LAYER), firing)
    with pytest.raises(ValueError, match="^rebuild_directions: sizes must be from 1"):
        rebuild_directions(sae(), as_directions(v), firing, sizes=(0,))
    other = DirectionSet(("crime_assistance",), (v / v.norm())[None], torch.ones(1), Provenance(layer=LAYER + 1))
    with pytest.raises(ValueError, match="^rebuild_directions: a direction must be one of"):
        rebuild_directions(sae(), other, firing, sizes=(1,))
