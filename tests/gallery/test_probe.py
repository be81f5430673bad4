"""The live explorer: projections by another route, answers under a condition, and what the controls show."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from refusal_utils.directions.direction_set import DirectionSet, Provenance
from refusal_utils.gallery import dials, probe_prompt
from refusal_utils.model.chat_model import BUNDLED_WEIGHTS
from refusal_utils.notebooks import NOTEBOOKS
from refusal_utils.steering import generate, steering_condition
from refusal_utils.study import Study
from refusal_utils.workflow.runner import run_notebook

PROMPT = "How can I kill the weeds between my paving stones?"
MARKUP = "<b>&</b> is it late"


@pytest.fixture(scope="module")
def directions(chat):
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(2, chat.d_model), dim=1)
    return DirectionSet(("advice", "humanizing"), vectors, torch.tensor([2.0, 4.0]), Provenance(chat.decision_layer))


def test_projections_are_those_of_hugging_faces_hidden_states(chat, directions, plain_ids):
    benign = torch.randn(chat.d_model)
    probe = probe_prompt(chat, directions, benign, PROMPT, "advice", 0.0, max_new_tokens=2)
    model = AutoModelForCausalLM.from_pretrained(BUNDLED_WEIGHTS, dtype=torch.float32).eval()
    with torch.no_grad():
        states = model(plain_ids(PROMPT), output_hidden_states=True).hidden_states[chat.decision_layer][0]
    expected = (states - benign) @ directions.vectors.T / torch.tensor([2.0, 4.0])
    torch.testing.assert_close(probe.projections, expected.T, rtol=1e-4, atol=1e-4)
    assert "".join(probe.tokens[3:]).split("?")[0].endswith("between my paving stones")
    assert probe.figure().data[0].z.shape == (2, len(probe.tokens))


def test_answers_are_those_of_the_condition(chat, directions):
    probe = probe_prompt(chat, directions, torch.zeros(chat.d_model), PROMPT, "advice", 30.0, max_new_tokens=12)
    condition = steering_condition(directions, "advice", gaps=30.0)
    own = generate(chat, [PROMPT], [condition], max_new_tokens=12)["response"]
    assert list(probe.table()["response"])[1] == own[0]
    assert list(probe.table().index) == ["unsteered", condition.name]
    assert probe.table()["response"].nunique() == 2


def test_tokens_of_a_prompt_stay_text_in_the_figure(chat, directions):
    probe = probe_prompt(chat, directions, torch.zeros(chat.d_model), MARKUP, "advice", 0.0, max_new_tokens=2)
    shown = "".join(probe.figure().data[0].x)
    assert "<" not in shown
    assert "&lt;" in shown
    assert "&amp;" in shown


def test_dials_answer_every_change_and_show_errors_as_sentences(chat, directions, tmp_path, monkeypatch, capsys):
    pytest.importorskip("ipywidgets")
    monkeypatch.setattr(Study, "directions", directions)
    monkeypatch.setattr(Study, "sides", lambda self: ({}, torch.zeros(3, chat.d_model)))

    study = Study("bundled", "builtin", tmp_path, tmp_path, 0, {})
    vars(study)["chat"] = chat
    box = dials(study, max_new_tokens=2)
    text, chosen, strength, _ = box.children
    assert [name for _, name in chosen.options] == ["advice", "humanizing"]
    before = capsys.readouterr().out
    assert "heatmap" in before
    for control, value in ((strength, 1.0), (chosen, "humanizing"), (text, MARKUP)):
        control.value = value
        assert "heatmap" in capsys.readouterr().out
    text.value = ""
    assert "a prompt must be a text that is not empty" in capsys.readouterr().out


@pytest.mark.slow
def test_the_notebook_runs_without_a_browser(tmp_path):
    parameters = {"CACHE_DIR": str(tmp_path / "cache")}
    run_notebook(NOTEBOOKS / "explorer.ipynb", tmp_path, parameters)
    text = (tmp_path / "explorer.ipynb").read_text()
    assert "Over-refusal (unsafe side), 1.12 gaps" in text
    assert "application/vnd.jupyter.widget-view+json" in text
    assert '"output_type": "error"' not in text
