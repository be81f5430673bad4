import json
import os
import re
import subprocess
import sys

import pytest

import refusal_utils
from refusal_utils.methods import METHODS
from refusal_utils.workflow import runner
from refusal_utils.workflow.command_line import main, set_thread_defaults
from refusal_utils.workflow.settings import Settings
from refusal_utils.workflow.sizes import SIZES


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--help"], "usage: python -m refusal_utils"),
        (["run", "--help"], "usage: python -m refusal_utils"),
        (["--version"], "refusal-utils 0.1.0"),
        (["run", "--set", "NOSUCH=1"], "got NOSUCH"),
        (["run", "--set", "JUDGE=wildgard"], "Did you mean 'wildguard'?"),
        (["run", "--notebooks", "01", "--set", "TOP_K=3"], "got TOP_K"),
        (["run", "--set", "LAYER=8"], "the layer must be one of 0 to 7; got 8"),
        (["report", "--model", ""], "MODEL: must not be empty"),
    ],
)
def test_help_and_errors_in_settings_load_neither_torch_nor_transformers(arguments, told):
    code = (
        "import sys, refusal_utils, refusal_utils.workflow.command_line as command_line\n"
        f"try: command_line.main({arguments!r})\n"
        "finally: print('LOADED', sorted({'torch', 'transformers', 'scipy', 'papermill'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("LOADED []\n")
    assert told in done.stdout + done.stderr


def test_the_package_exports_few_names_and_each_is_there():
    assert len(refusal_utils.__all__) <= 30
    assert {"open_study", "load_chat_model", "DirectionSet", "generate", "judge_response"} <= set(refusal_utils.__all__)
    assert all(getattr(refusal_utils, name) is not None for name in refusal_utils.__all__)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--notebooks"], "expected at least one argument"),
        (["run", "--set"], "expected at least one argument"),
        (["run", "--modle", "x"], "unrecognized arguments: --modle x. Did you mean '--model'?"),
        (["rnu"], "invalid choice: 'rnu' (choose from"),
        (["rnu"], "Did you mean 'run'?"),
        (["metods"], "Did you mean 'methods'?"),
        (["train-sea"], "Did you mean 'train-sae'?"),
        (["--versoin"], "unrecognized arguments: --versoin. Did you mean '--version'?"),
        (["report", "--model", "a", "--models", "b"], "not allowed with argument"),
        ([], "a command is needed: run, report, sweep, judge, audit, train-sae, settings or methods"),
    ],
)
def test_wrong_options_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", ""], "MODEL: must not be empty"),
        (["--model", "bundeld"], "Did you mean 'bundled'?"),
        (["--model", "./nothing"], "nothing, which does not exist"),
        (["--model", "FILE"], "FILE, which is none"),
        (["--model", "empty"], "the model must be a folder with config.json"),
        (["--model", "nothing.gguf"], "nothing.gguf, which does not exist"),
        (["--model", "goggle/gemma-2-9b-it"], "Did you mean 'google/gemma-2-9b-it'?"),
        (["--model", "models/chaty"], "Did you mean 'models/chatty'?"),
        (["--prompts", ""], "PROMPTS: must not be empty"),
        (["--prompts", "broken.csv"], "broken.csv"),
        (["--size", ""], "SIZE: "),
        (["--size", "quik"], "Did you mean 'quick'?"),
        (["--out", ""], "FIGURES_DIR: must not be empty"),
        (["--out", "FILE"], "which is a file"),
        (["--out", "FILE/deeper"], "which is a file"),
        (["--set", "CACHE_DIR=FILE"], "which is a file"),
        (["--set", "LAYER=8"], "the layer must be one of 0 to 7; got 8"),
        (["--set", "POS=-99"], "positions must lie in the template's last 4 tokens; got -99"),
        (["--set", "SYSTEM_PROMPT=a<|end|>b"], "the system prompt must not contain chat markup"),
        (["--prompts", "FILE"], "got 'FILE'. Correct the value."),
        (["--notebooks", ""], "the number must be one of"),
        (["--notebooks", "01,77"], "got '77'"),
        (["--notebooks", "01_eleven_categoris"], "Did you mean '01_eleven_categories'?"),
    ],
)
def test_a_wrong_argument_is_one_sentence_before_anything_is_made(
    arguments, message, tmp_path, monkeypatch, capsys, offline
):
    for name in ("empty", "models/chatty"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "models/chatty/config.json").write_text("{}")
    (tmp_path / "FILE").write_text("")
    (tmp_path / "broken.csv").write_text("category,text\nnothing,How?\n")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "FIGURES", tmp_path / "figures")
    assert main(["run", *arguments]) == 1
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said
    assert sorted(tmp_path.rglob("*")) == before


def test_methods_lists_every_method_with_its_options_and_source(capsys):
    assert main(["methods"]) == 0
    rows = {block.split(":")[0]: block for block in capsys.readouterr().out.strip().split("\n\n")}
    assert set(rows) == set(METHODS)
    for name, method in METHODS.items():
        assert method.title in rows[name]
        assert method.source in rows[name]
        assert all(f"{option}={default!r}" in rows[name] for option, default in method.options.items())
    assert "resid_post" in rows["ridge_mean_difference"]
    assert "states, confidence" in rows["weighted_ridge_mean_difference"]


def test_settings_lists_every_parameter_and_the_sizes(capsys):
    assert main(["settings"]) == 0
    parameters, sizes = capsys.readouterr().out.split("\n\n")
    assert len(parameters.splitlines()) == len(Settings.model_fields)
    assert len(sizes.splitlines()) == 1 + len(SIZES)


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_idle_threads_sleep_unless_the_user_chose_otherwise(monkeypatch, before, after):
    monkeypatch.setenv("OMP_WAIT_POLICY", before or "")
    if before is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    set_thread_defaults()
    assert os.environ["OMP_WAIT_POLICY"] == after


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "--set", "SEED=1", "SEED=2"], "a setting must be given once; got \\['SEED'\\] twice"),
        (["judge", "nowhere.jsonl"], "got nowhere.jsonl, which is not there"),
        (["judge", "."], "got ., which is a folder"),
        (["judge", "broken.jsonl"], "got invalid JSON .* at broken.jsonl, line 1"),
        (["judge", "labels.csv", "--judge", "self"], r"got none\. Name one \(--model\)"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.jsonl").write_text('{"prompt": 1')
    (tmp_path / "labels.csv").write_text("prompt,response,label\nHow?,No.,yes\n")
    assert main(arguments) == 1
    error = capsys.readouterr().err.strip()
    assert re.search(told, error)
    assert "\n" not in error


@pytest.mark.parametrize(
    "command", [["run"], ["audit", "bundled", "bundled"], ["train-sae", "--model", "bundled"]], ids=lambda each: each[0]
)
@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("own.csv", "text,id\nHow?,1\n", "got the category None, not one of safety_core, .*own.csv, line 2"),
        ("own.jsonl", '{"text": "How?"}\n', "got the category None, not one of .*own.jsonl, line 1"),
        (
            "own.csv",
            "question,category\nHow?,advice\n",
            "got no text or prompt, only 'question', 'category', at .*own.csv",
        ),
        ("own.tsv", "category\nadvice\n", "got no text or prompt, only 'category', at .*own.tsv, line 2"),
        ("own.csv", "text,category\n", "the file must hold prompts; got none in .*own.csv"),
    ],
)
def test_a_prompt_file_without_a_column_is_one_sentence(command, name, content, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "FIGURES", tmp_path / "figures")
    (tmp_path / name).write_text(content)
    assert main([*command, "--prompts", name]) == 1
    error = capsys.readouterr().err.strip()
    assert re.search(told, error)
    assert "\n" not in error


@pytest.mark.parametrize("missing", ["prompt", "response", "label"])
def test_a_file_of_labels_without_a_column_is_one_sentence(missing, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = {"prompt": "How?", "response": "No.", "label": "yes"}
    (tmp_path / "own.jsonl").write_text(json.dumps({name: each for name, each in rows.items() if name != missing}))
    assert main(["judge", "own.jsonl"]) == 1
    assert f"a file of labels must have its columns; got {missing} missing in own.jsonl" in capsys.readouterr().err


def test_a_report_of_several_models_is_not_begun_if_one_has_no_figures(tmp_path, capsys):
    (tmp_path / "bundled").mkdir()
    assert main(["report", "--models", "bundled", "nosuch/model", "--out", str(tmp_path)]) == 1
    assert "got no folder" in capsys.readouterr().err
    assert list((tmp_path / "bundled").iterdir()) == []
