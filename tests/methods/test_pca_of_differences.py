"""PCA of differences is the PCA of all pairs, without forming them."""

import numpy as np
import pytest
import torch

from refusal_utils.methods.pca_of_differences import top_component


@pytest.mark.parametrize(("n_refused", "n_answered"), [(30, 50), (4, 3)])  # more and fewer rows than dimensions
def test_the_component_is_that_of_all_pairs(n_refused, n_answered):
    draw = torch.Generator().manual_seed(0)
    refused, answered = (torch.randn(n, 12, generator=draw) for n in (n_refused, n_answered))
    refused = refused * torch.linspace(1, 3, 12) + 1
    pairs = (refused[:, None] - answered).reshape(-1, 12).double().numpy()
    axes = np.linalg.eigh(pairs.T @ pairs)[1]
    found = top_component(refused, answered).double().numpy()
    assert abs(found @ axes[:, -1]) == pytest.approx(1, abs=1e-6)
    between = refused.mean(0) - answered.mean(0)
    assert abs(found @ between.numpy()) / between.norm() < 0.99  # before control: not simply the difference in means
