"""RMD: what it must equal if the covariance is the identity, if lambda vanishes, and if there are few prompts."""

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor
from torch.nn.functional import cosine_similarity

from refusal_utils.methods import METHODS
from refusal_utils.methods.ridge_mean_difference import ridge_difference, ridge_penalty, whiten

D_MODEL = 8


def cloud(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, D_MODEL, generator=torch.Generator().manual_seed(seed)) * torch.linspace(0.5, 3, D_MODEL)


def angle(first: Tensor, second: Tensor) -> float:
    cosine = cosine_similarity(first.double(), second.double(), dim=0)
    return float(torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))))


def test_with_an_identity_covariance_it_is_the_difference_in_means():
    answered = cloud(60).double()
    answered = answered - answered.mean(0)
    white = answered @ torch.linalg.inv(torch.linalg.cholesky(answered.T @ answered / len(answered))).T
    refused = cloud(40, seed=1) + 1
    between = refused.mean(0) - white.mean(0).float()
    assert angle(ridge_difference(refused, white.float(), 0.1, "share"), between) < 0.01
    assert angle(ridge_difference(refused, answered.float(), 0.1, "share"), between) > 10  # before control


def test_as_lambda_vanishes_it_is_the_discriminant_of_classes_with_one_covariance():
    answered = cloud(60)
    shift = cloud(1, seed=2)[0]
    refused = answered + shift  # the same covariance exactly
    states = torch.cat([refused, answered]).double().numpy()
    fitted = LinearDiscriminantAnalysis(solver="lsqr").fit(states, np.arange(120) < 60)
    wanted = torch.as_tensor(fitted.coef_[0])
    far, near = (angle(ridge_difference(refused, answered, ridge, "absolute"), wanted) for ridge in (10.0, 1e-6))
    assert near < 0.01
    assert far > 10


@pytest.mark.parametrize("n", [3, 8, 20])
def test_fewer_prompts_than_dimensions_give_what_the_direct_solve_gives(n):
    rows, vector = cloud(n).double(), cloud(1, seed=3)[0].double()
    wanted = np.linalg.solve(rows.T.numpy() @ rows.numpy() + 0.3 * np.eye(D_MODEL), vector.numpy())
    np.testing.assert_allclose(whiten(vector, rows, 0.3).numpy(), wanted, rtol=1e-9)


def test_a_share_does_not_depend_on_the_unit_and_an_absolute_lambda_does():
    refused, answered = cloud(40, seed=1) + 1, cloud(60)
    share, absolute = (
        angle(ridge_difference(refused, answered, 0.1, unit), ridge_difference(9 * refused, 9 * answered, 0.1, unit))
        for unit in ("share", "absolute")
    )
    assert share < 0.01
    assert absolute > 0.1
    variance = float(np.trace(np.cov(answered.numpy().T, bias=True))) / D_MODEL
    equal = ridge_difference(refused, answered, 0.1 * variance, "absolute")
    torch.testing.assert_close(equal, ridge_difference(refused, answered, 0.1, "share"), rtol=1e-4, atol=1e-5)


def test_lambda_must_be_positive_and_its_unit_known():
    with pytest.raises(ValueError, match="^ridge_penalty: lambda must be positive; got ridge 0"):
        ridge_penalty(0.0, "absolute", 1.0)
    with pytest.raises(ValueError, match="^ridge_penalty: lambda must be positive; got ridge 0.1"):
        ridge_penalty(0.1, "share", 0.0)


def test_the_provenance_names_the_hook_that_the_source_reads():
    assert METHODS["ridge_mean_difference"].reads == METHODS["weighted_ridge_mean_difference"].reads == "resid_post"
