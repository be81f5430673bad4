import json

import pytest

from refusal_utils.model.chat_model import load_chat_model
from refusal_utils.model.defaults import PUBLISHED, decision_default, decision_state

MIDDLE = "none published for this model: middle of the depth"


@pytest.mark.parametrize(
    ("name", "n_layers", "expected"),
    [
        ("google/gemma-2-9b-it", 42, (20, -2, "Joad et al. 2602.02132")),
        ("meta-llama/Llama-3.1-8B-Instruct", 32, (15, -2, "Joad et al. 2602.02132")),
        ("meta-llama/Meta-Llama-3-8B-Instruct", 32, (12, -5, "release of Joad et al. 2602.02132")),
        ("Qwen/Qwen-7B-Chat", 32, (18, -1, "release of Joad et al. 2602.02132")),
        ("google/gemma-2b-it", 18, (10, -2, "release of Arditi et al. 2406.11717")),
        ("Qwen/Qwen-1_8B-Chat", 24, (15, -2, "release of Arditi et al. 2406.11717")),
        ("/models/GEMMA-2-9B-IT/", 42, (20, -2, "Joad et al. 2602.02132")),  # a folder of that name, in any case
    ],
)
def test_decision_default_is_the_published_one(name, n_layers, expected):
    assert decision_default(name, n_layers) == expected


@pytest.mark.parametrize(
    ("name", "n_layers"),
    [
        ("google/gemma-2-9b-it", 26),  # another depth: another model
        ("google/gemma-2-9b", 42),
        ("someone/gemma-2-9b-it-abliterated", 42),
        ("gemma-2-9b-it/checkpoint-7", 42),
        ("google/gemma-2-2b-it", 26),
        ("bundled", 8),
    ],
)
def test_decision_default_of_any_other_model_is_the_middle_of_the_depth(name, n_layers):
    assert decision_default(name, n_layers) == (n_layers // 2, -2, MIDDLE)


def test_published_states_lie_within_their_models():
    for depth, layer, pos, source in PUBLISHED.values():
        assert 0 < layer < depth
        assert -5 <= pos <= -1
        assert "et al." in source


def test_decision_state_says_where_it_comes_from(tmp_path):
    nothing = tmp_path / "gemma-2-9b-it"
    assert decision_state("x", nothing, 8, 5) == (4, -2, MIDDLE)
    assert decision_state("x", nothing, 8, 5, layer=3) == (3, -2, f"layer given; else {MIDDLE}")
    assert decision_state("x", nothing, 8, 5, pos=-4) == (4, -4, f"pos given; else {MIDDLE}")
    assert decision_state("x", nothing, 8, 5, layer=0, pos=-4) == (0, -4, "given")
    (tmp_path / "decision_state.json").write_text(json.dumps({"layer": 6, "pos": -3}))
    assert decision_state("google/gemma-2-9b-it", tmp_path, 42, 5)[:2] == (6, -3)  # the folder's word goes first
    assert decision_state("x", tmp_path, 8, 5)[2] == "decision_state.json of the model's folder"


def test_decision_state_is_the_last_token_where_the_templates_ending_is_shorter(tmp_path):
    layer, pos, source = decision_state("mistralai/Mistral-7B-Instruct-v0.3", tmp_path, 32, 1)
    assert (layer, pos) == (16, -1)
    assert source.startswith(MIDDLE)
    assert "ending has 1 token" in source


def test_the_model_carries_the_source_of_its_decision_state(chat, model_folder):
    assert chat.decision_source == "decision_state.json of the model's folder"
    (model_folder / "decision_state.json").unlink()
    assert load_chat_model(model_folder, device="cpu").decision_source == MIDDLE
    assert load_chat_model(model_folder, device="cpu", layer=2, pos=-1).decision_source == "given"
