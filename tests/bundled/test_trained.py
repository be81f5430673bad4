"""Shipped directions: they belong to the bundled model and the default draw, and anything else is trained."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from refusal_utils.bundled import trained
from refusal_utils.bundled.trained import FOLDER, SHIPPED, trained_directions
from refusal_utils.directions import DirectionSet
from refusal_utils.methods import METHODS
from refusal_utils.methods.cone_results import ConeSearch
from refusal_utils.methods.rdo import LOSSES, rdo
from refusal_utils.model.artifacts import model_notes
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.study import open_study
from refusal_utils.workflow.settings import Settings

REPO = Path(__file__).parents[2]


@pytest.fixture
def study(chat, tmp_path):
    draw = pd.read_csv(REPO / "figures" / "bundled" / "01_draw.csv", keep_default_na=False)
    draw = draw.merge(load_prompts()[["id", "text"]], on="id")
    return SimpleNamespace(chat=chat, draw=draw, cache_dir=tmp_path)


@pytest.mark.parametrize("method", SHIPPED)
def test_shipped_sets_are_those_of_notebook_11_by_default(study, method, monkeypatch, capsys):
    monkeypatch.setattr(type(METHODS[method]), "fit", None)  # nothing is trained
    asked = {"n_updates": Settings().N_UPDATES, "seed": Settings().SEED, **SHIPPED[method]}
    found = trained_directions(study, method, **asked)
    assert capsys.readouterr().out.startswith(f"{method}: trained before on this model and these prompts")
    assert SHIPPED["cones"]["k"] == Settings().CONE_K
    assert found.provenance.estimator == method
    torch.testing.assert_close(found.vectors.norm(dim=-1), torch.ones(len(found)))


def test_the_first_shipped_cone_is_the_shipped_direction():
    direction, every = (DirectionSet.load(FOLDER / f"{method}.safetensors") for method in ("rdo", "cones"))
    search = ConeSearch.of(every)
    assert torch.equal(search.cones[0].basis, direction.vectors)
    assert [len(each.basis) for each in search.cones] == [*range(1, SHIPPED["cones"]["k"] + 1)]


def test_another_model_draw_or_option_is_trained_at_the_decision_state_or_where_asked(study, monkeypatch, capsys):
    fits, trained_now = [], DirectionSet.load(FOLDER / "rdo.safetensors")
    monkeypatch.setattr(type(METHODS["rdo"]), "fit", lambda self, study, **options: fits.append(options) or trained_now)
    trained_directions(study, "rdo", n_updates=3)
    trained_directions(SimpleNamespace(**{**vars(study), "draw": study.draw.iloc[1:]}), "rdo")
    monkeypatch.setattr(trained, "model_notes", lambda chat: {**model_notes(chat), "dtype": "bfloat16"})
    trained_directions(study, "rdo")
    trained_directions(study, "rdo", place=(3, -1))
    at = {"place": (study.chat.decision_layer, study.chat.decision_pos)}
    assert fits == [{"n_updates": 3, **at}, at, at, {"place": (3, -1)}]
    assert capsys.readouterr().out.count("no trained directions") == 4


@pytest.mark.parametrize(("dtype", "trained_in"), [("float16", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_model_on_the_cpu_is_trained_as_it_is_unless_in_float16(
    study, tmp_path, monkeypatch, capsys, dtype, trained_in
):
    own = type(METHODS["rdo"])
    monkeypatch.setattr(own, "fit", lambda self, study, **options: (study.chat, study.draw))
    half = open_study("bundled", figures_dir=tmp_path, cache_dir=tmp_path, dtype=dtype, layer=3, pos=-1)
    vars(half)["draw"] = study.draw
    chat, draw = trained_directions(half, "rdo")
    assert chat.dtype == trained_in
    assert (chat.decision_layer, chat.decision_pos) == (3, -1)
    assert draw is half.draw
    assert ("rdo: trained in float32" in capsys.readouterr().out) == (dtype == "float16")


@pytest.mark.slow
def test_a_short_descent_has_the_losses_of_the_shipped_one_and_its_direction_the_scores(study, tmp_path):
    shipped = DirectionSet.load(FOLDER / "rdo.safetensors")
    told = shipped.provenance.settings
    assert len(told["losses"]) == told["n_updates"]
    found = rdo(study.chat, study.draw, n_updates=4, cache_dir=tmp_path)
    assert (found.training.layer, found.training.pos) == (shipped.provenance.layer, shipped.provenance.pos)
    torch.testing.assert_close(
        torch.tensor(found.rows[LOSSES].to_numpy()), torch.tensor(told["losses"][:4]).double(), rtol=0.02, atol=1e-3
    )
    scores = found.training.scores(shipped.vectors).loc[0].to_dict()
    assert scores == pytest.approx(told["scores"], rel=0.01, abs=1e-3)
    assert scores["bypass"] < found.training.scores(found.direction[None])["bypass"].item()  # control: a short descent
