"""The counts against what the package does; `tests/test_notebooks` compares them with the records of notebooks."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from refusal_utils.methods import audit
from refusal_utils.model.capture import capture_activations, profile_places
from refusal_utils.model.work import WORK, Work
from refusal_utils.notebooks import find_notebooks
from refusal_utils.prompts.draws import draw_prompts
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.steering.places import place_effects
from refusal_utils.tradeoff.controlled_set import controlled_set
from refusal_utils.workflow.planning.calibration import facts_of
from refusal_utils.workflow.planning.counts import COUNTS, _place_search, count_rows_of
from refusal_utils.workflow.planning.scene import Loop, ModelFacts, Scene
from refusal_utils.workflow.settings import read_settings

FACTS = ModelFacts(n_layers=8, decision_layer=6, n_positions=5, n_heads=8, layers_read=8)
TINY = {"N_PROMPTS": 16, "N_POOL": 20, "N_BUCKET": 8, "N_COMPARED": 8, "N_TWINS": 2, "N_RANDOM": 1, "N_SINGLE": 3}


def counted(number: str, model: str = "bundled", facts: ModelFacts = FACTS, **values) -> dict[str, int]:
    """Rows by loop of one notebook."""
    scene = Scene.of(read_settings((), MODEL=model, **{**TINY, **values}), facts)
    rows: dict[str, int] = {}
    for loop in count_rows_of(scene, [number])[number]:
        rows[loop.name] = rows.get(loop.name, 0) + loop.rows
    return rows


def test_every_notebook_is_counted():
    assert list(COUNTS) == [path.name[:2] for path in find_notebooks()]
    scene = Scene.of(read_settings((), **TINY), FACTS)
    found = count_rows_of(scene, list(COUNTS))
    assert not found["01"] + found["08"]  # they load no model
    assert all(found[number] for number in ("02", "03", "04", "06", "07", "09", "10", "11", "12", "13", "14"))


def test_counts_are_those_of_a_recorded_run_of_all_notebooks(chat):
    """`tiny_run.json` has the rows that every loop reported in one run of the bundled model, from an empty cache.

    Counts that depend on what the model answers may be off by half; the others are equal.
    """
    recorded = json.loads(Path(__file__).with_name("tiny_run.json").read_text())
    scene = Scene.of(read_settings((), **recorded["parameters"]), facts_of(chat, None, None))
    for number, loops in count_rows_of(scene, list(COUNTS)).items():
        done = recorded["rows"][number]
        assert {loop.name for loop in loops} == set(done), number
        for name, n in done.items():
            own = [loop for loop in loops if loop.name == name]
            planned = sum(loop.rows for loop in own)
            is_exact = all(loop.is_exact for loop in own)
            assert planned == n if is_exact else n / 1.5 <= planned <= 1.5 * n, (number, name, planned, n)


def test_captures_are_counted_once_over_the_notebooks_that_read_them(chat, tmp_path):
    """Against the rows that `capture_activations` reports for the draw, and then for the draw topped up."""
    scene = Scene.of(read_settings((), N_PROMPTS=8), FACTS)
    counts = count_rows_of(scene, ["02", "03"])
    train = load_prompts(split="train")
    draw = draw_prompts(train, "label", 8)
    how = {**profile_places(chat), "cache_dir": tmp_path}
    assert capture_activations(chat, list(draw["text"]), **how).n_captured == counts["02"][0].rows
    again = capture_activations(chat, list(scene.study.widened(64)["text"]), **how)
    assert again.n_captured == counts["03"][0].rows


def test_the_search_for_a_place_asks_as_many_rows_as_are_counted(chat, tmp_path, monkeypatch):
    """On two layers, so that all places are measured in full; the probes' number depends on the model."""
    monkeypatch.setenv(WORK, str(tmp_path / "work"))
    prompts, layers = load_prompts(), [4, 6]
    found = place_effects(chat, prompts, layers=layers, positions=[-2, -1])
    done = Work.read(tmp_path / "work")
    facts = ModelFacts(8, 6, 5, 8, n_searched=4)
    loops = _place_search(Scene.of(read_settings(()), facts))
    assert min(found.n_refused, found.n_answered) == 16
    detail = sum(loop.rows for loop in loops if loop.name == "generate") - loops[0].rows
    assert sum(loop.rows for loop in loops if loop.name == "capture_activations") == done.rows["capture_activations"]
    assert done.rows["generate"] - detail in range(2 * 32, 6 * 32 + 1)  # chunks of 32 probes a side


def test_an_audit_reads_as_many_rows_as_are_counted(chat, tmp_path, monkeypatch):
    monkeypatch.setenv(WORK, str(tmp_path / "work"))
    audit(chat, chat, load_prompts(split="train"), n_prompts=16, n_draws=10)
    scene = Scene.of(read_settings((), **TINY), FACTS)
    (own, *_) = count_rows_of(scene, ["13"])["13"]
    assert Work.read(tmp_path / "work").rows == {"capture_activations": own.rows}


def test_buckets_are_those_of_the_controlled_set_that_the_seen_refusals_make_likely():
    """The expected size against many models whose share of refusals has the posterior of what was seen."""
    scene, rng = Scene.of(read_settings((), N_POOL=32), FACTS), np.random.default_rng(0)
    harmful, benign = 352, 96
    for seen in (((4, 16), (0, 16)), ((13, 16), (4, 16)), ((400, 1000), (300, 1000))):
        scene.model, sizes = replace(FACTS, refused=seen), []
        for _ in range(400):
            outcomes = []
            for (refused, asked), n in zip(seen, (harmful, benign), strict=True):
                n_refused = round(rng.beta(refused + 0.5, asked - refused + 0.5) * n)
                outcomes += ["refused"] * n_refused + ["answered"] * (n - n_refused)
            pool = pd.DataFrame({"outcome": outcomes, "category": ["advice"] * harmful + ["benign"] * benign})
            pool = pool.assign(id=pool.index.astype(str), text=pool.index.astype(str))
            sizes.append(len(controlled_set(pool, n=16)))
        assert scene.n_bucketed(16) == pytest.approx(np.mean(sizes), rel=0.06)
    assert Scene.of(read_settings((), N_POOL=32), FACTS).n_bucketed(16) == 64  # a model that was not asked


def test_counts_grow_with_the_parameters_that_they_depend_on():
    gaps, controls = {"GAPS": "few", "CONTROL_GAPS": "few"}, {"N_CONTROLS": 1}
    few, many = (counted("07", N_BUCKET=n, **gaps, **controls)["kl_spent"] for n in (4, 8))
    assert many == 2 * few
    assert counted("07", **gaps, **controls)["kl_spent"] == 8 * (12 * 3 + 2 * 2 + 1)
    heads = [counted("06", N_RANDOM=n)["forward_under"] for n in (1, 3)]
    assert heads == [22 * 5, 22 * 9]
    assert counted("06", N_SINGLE=5)["states_under"] - counted("06")["states_under"] == 2 * 22
    assert counted("10", N_SUFFIXED=2)["refusal_scores"] - counted("10", N_SUFFIXED=1)["refusal_scores"] == 12 * 25


def test_what_is_shared_below_a_layer_is_passed_once_per_prompt():
    loop = Loop("generate", 10, 4, below=0.75)
    assert loop.rows == 40
    assert loop.passes == pytest.approx(10 * 0.75 + 40 * 0.25)
    assert Loop("generate", 10, 4).passes == 40
    assert Loop("states_under", 10, depth=0.5).passes == 5


def test_facts_are_those_of_the_model(chat):
    facts = facts_of(chat, None, None)
    assert (facts.n_layers, facts.decision_layer, facts.n_positions) == (8, 6, len(chat.suffix))
    assert facts.n_searched == 0
    assert facts_of(chat, "causal", -1).n_searched == 3  # layers 2, 4 and 6
