"""WRMD: the weights are the confidence, equal ones are RMD, and the provenance tells which it was."""

import numpy as np
import pytest
import torch

from refusal_utils.methods import METHODS

from .test_methods import D_MODEL, N_PROMPTS, PlantedStudy, cosines

RMD, WRMD = METHODS["ridge_mean_difference"], METHODS["weighted_ridge_mean_difference"]


class RatedStudy(PlantedStudy):
    """A planted study that also knows how surely each prompt is refused."""

    def confidence(self):
        draw = torch.Generator().manual_seed(5)
        rated = {name: torch.rand(self.n, generator=draw) for name in self.states}
        return {"advice": rated["advice"], "humanizing": rated["humanizing"], "benign": -rated["answered"]}


def test_directions_are_those_of_weighted_numpy_statistics():
    study = RatedStudy()
    found = WRMD.fit(study)
    states = {name: rows.double().numpy() for name, rows in study.states.items()}
    weights = {name: np.maximum(own.abs().double().numpy(), 0.01) for name, own in study.confidence().items()}
    covariance = np.cov(states["answered"].T, aweights=weights["benign"], bias=True)
    ridge = 0.1 * np.trace(covariance) / D_MODEL * np.eye(D_MODEL)
    for name in ("advice", "humanizing"):
        between = np.average(states[name], axis=0, weights=weights[name])
        between = between - np.average(states["answered"], axis=0, weights=weights["benign"])
        wanted = np.linalg.solve(covariance + ridge, between)
        np.testing.assert_allclose(found[name].numpy(), wanted / np.linalg.norm(wanted), atol=1e-5)
    assert cosines(found, RMD.fit(study)).max() < 0.999  # before control: the weights do matter
    assert found.provenance.settings["weights"] == "confidence"


def test_without_a_confidence_and_with_equal_ones_it_is_rmd(monkeypatch):
    study = RatedStudy()
    plain = RMD.fit(study)
    equal = {"advice": torch.full((N_PROMPTS,), 0.4), "humanizing": torch.full((N_PROMPTS,), 0.9)}
    equal["benign"] = torch.full((N_PROMPTS,), -0.7)
    for confidence, named in ((None, "equal, no confidence given"), (equal, "confidence")):
        monkeypatch.setattr(study, "confidence", lambda own=confidence: own)
        found = WRMD.fit(study)
        torch.testing.assert_close(found.vectors, plain.vectors, rtol=0, atol=1e-5)
        assert found.provenance.settings["weights"] == named
    assert "weights" not in plain.provenance.settings


def test_a_prompt_that_the_model_treats_otherwise_than_drawn_hardly_counts(monkeypatch):
    """Prompts that were drawn as refused but are surely answered leave the direction as if they had not been drawn."""
    study, shorter = PlantedStudy(), PlantedStudy()
    study.states["advice"][:100] = 5.0 * torch.randn(D_MODEL, generator=torch.Generator().manual_seed(7))
    shorter.states["advice"] = study.states["advice"][100:]
    confidence = {name: torch.ones(N_PROMPTS) for name in ("advice", "humanizing")} | {"benign": -torch.ones(N_PROMPTS)}
    confidence["advice"][:100] = -0.9
    misled = WRMD.fit(study)
    monkeypatch.setattr(study, "confidence", lambda: confidence)
    wanted = WRMD.fit(shorter)
    assert float(misled["advice"] @ wanted["advice"]) < 0.8
    assert float(WRMD.fit(study)["advice"] @ wanted["advice"]) > 0.99


def test_pooled_prompts_keep_their_weights():
    study = RatedStudy()
    pooled, one = WRMD.fit(study, categories=["advice"], pooled=True), WRMD.fit(study, categories=["advice"])
    torch.testing.assert_close(pooled["refusal"], one["advice"])
    assert WRMD.fit(study, pooled=True).provenance.settings["weights"] == "confidence"


@pytest.mark.parametrize("wrong", [torch.ones(3), torch.full((N_PROMPTS,), 2.0), torch.full((N_PROMPTS,), torch.nan)])
def test_a_confidence_of_other_prompts_or_out_of_range_is_an_error(monkeypatch, wrong):
    study = RatedStudy()
    rated = {**study.confidence(), "humanizing": wrong}
    monkeypatch.setattr(study, "confidence", lambda: rated)
    must = "every prompt must have a confidence from -1 to 1"
    with pytest.raises(ValueError, match=f"^weighted_ridge_mean_difference: {must}; got .* of humanizing"):
        WRMD.fit(study)
