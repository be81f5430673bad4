"""The discriminant is the whitened difference in means; with full shrinkage nothing is whitened."""

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf
from torch.nn.functional import cosine_similarity

from refusal_utils.methods.lda import discriminant


def sides() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    spread = torch.linspace(0.5, 4, 8)
    return torch.randn(40, 8, generator=draw) * spread + 0.7, torch.randn(90, 8, generator=draw) * spread


@pytest.mark.parametrize("shrinkage", ["auto", 0.02, 0.3])
def test_the_discriminant_solves_the_shrunk_covariance(shrinkage):
    refused, answered = sides()
    shrunk = 0.0
    for side in (refused.double().numpy(), answered.double().numpy()):
        plain = np.cov(side.T, bias=True)
        share = ledoit_wolf(side)[1] if shrinkage == "auto" else shrinkage
        shrunk = shrunk + len(side) / 130 * ((1 - share) * plain + share * np.trace(plain) / 8 * np.eye(8))
    wanted = np.linalg.solve(shrunk, (refused.mean(0) - answered.mean(0)).double().numpy())
    np.testing.assert_allclose(discriminant(refused, answered, shrinkage).numpy(), wanted, rtol=1e-4, atol=1e-6)


def test_full_shrinkage_leaves_the_difference_in_means():
    refused, answered = sides()
    between = refused.mean(0) - answered.mean(0)
    assert float(cosine_similarity(discriminant(refused, answered, 1.0), between, dim=0)) > 0.99999
    assert float(cosine_similarity(discriminant(refused, answered, "auto"), between, dim=0)) < 0.9  # before control
