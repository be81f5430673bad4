"""The logistic probe minimises the loss it names, in any unit; a strong penalty leaves the difference in means."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn.functional import cosine_similarity

from refusal_utils.methods.logistic_probe import probe_weights


def sides() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    spread = torch.linspace(0.5, 4, 8)
    return torch.randn(40, 8, generator=draw) * spread + 0.7, torch.randn(90, 8, generator=draw) * spread


def test_the_weights_minimise_the_balanced_loss():
    refused, answered = sides()
    states = torch.cat([refused, answered]).double().numpy()
    states = states - states.mean(0)
    states = states / np.sqrt(np.square(states).mean())
    sign = np.repeat([1.0, -1.0], [40, 90])
    counted = np.repeat([65 / 40, 65 / 90], [40, 90])  # both sides weigh as much as 65 prompts

    def loss(point: np.ndarray) -> float:
        margin = sign * (states @ point[:-1] + point[-1])
        return counted @ np.logaddexp(0, -margin) + 2.0 / 2 * np.square(point[:-1]).sum()

    wanted = minimize(loss, np.zeros(9), tol=1e-10).x[:-1]
    np.testing.assert_allclose(probe_weights(refused, answered, ridge=2.0).numpy(), wanted, rtol=1e-3, atol=1e-4)


def test_a_strong_penalty_leaves_the_difference_in_means():
    refused, answered = sides()
    between = refused.mean(0) - answered.mean(0)
    strong, usual = (cosine_similarity(probe_weights(refused, answered, ridge), between, dim=0) for ridge in (1e5, 1.0))
    assert float(strong) > 0.9999
    assert float(usual) < 0.99  # before control


def test_the_unit_of_the_states_does_not_matter():
    refused, answered = sides()
    plain, scaled = probe_weights(refused, answered, 1.0), probe_weights(50 * refused, 50 * answered, 1.0)
    assert float(cosine_similarity(plain, scaled, dim=0)) == pytest.approx(1, abs=1e-5)
