import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from refusal_utils.model.names import FIGURES, cache_key
from refusal_utils.workflow.command_line import main
from refusal_utils.workflow.records import read_record
from refusal_utils.workflow.runner import figures_root, run_notebook
from refusal_utils.workflow.settings import Settings

from .conftest import PARAMETERS

AFTER_01 = "the cache of notebook 01"
DRAW = "`01_draw.csv`"
BOTH = "`01_draw.csv` and `03_directions.safetensors`"
SWEEP = "`06_sweep_<model>.jsonl.gz`"


def test_run_notebook_passes_parameters_and_writes_the_executed_copy(notebook, tmp_path):
    path = notebook("01_a.ipynb", "print('got', N_DRAWS)")
    assert run_notebook(path, tmp_path / "out", {"N_DRAWS": 5}) < 1
    assert "got 5" in (tmp_path / "out" / "01_a.ipynb").read_text()
    assert "got 5" not in path.read_text()


def test_run_notebook_refuses_an_unknown_parameter(notebook, tmp_path):
    with pytest.raises(ValueError, match="^run_notebook: parameters must be among .*MODEL, N_DRAWS; got MODLE"):
        run_notebook(notebook("01_a.ipynb"), tmp_path / "out", {"MODLE": "x"})


def test_run_prints_a_line_per_notebook_stops_at_the_first_failure_and_continues_there(notebook, capsys):
    notebook("01_good.ipynb")
    notebook("02_bad.ipynb", "assert N_DRAWS == 2, 'no'", needs=AFTER_01)
    notebook("03_never.ipynb", needs=AFTER_01.replace("01", "02"))
    assert main(["run"]) == 1
    out, err = capsys.readouterr()
    assert re.match(r"01_good +0\.\d min\n", out)
    assert "03_never" not in out
    assert re.search(r"02_bad.ipynb failed in cell \d+:\n    assert N_DRAWS == 2, 'no'\nAssertionError: no", err)
    notebook("02_bad.ipynb", "pass", needs=AFTER_01)
    assert main(["run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["skipped" in line for line in lines[:3]] == [True, False, False]
    assert main(["run", "--notebooks", "9"]) == 1
    assert "the number must be one of" in capsys.readouterr().err


def test_a_run_with_missing_inputs_stops_before_it_begins_and_names_what_to_run(notebook, instant, tmp_path, capsys):
    needs = {"01": "nothing", "02": DRAW, "03": DRAW, "04": DRAW, "05": BOTH, "06": BOTH, "07": SWEEP}
    for number, files in needs.items():
        notebook(f"{number}_a.ipynb", needs=files)
    figures, cache = tmp_path / "figures" / "m", tmp_path / ".cache"

    def answer(*chosen: str) -> str:
        capsys.readouterr()
        code = main(["run", "--model", "a/m", "--fresh", "--notebooks", *chosen])
        ran = " ".join(number for number, _ in instant)
        assert code == (0 if instant else 1)
        instant.clear()
        return ran or capsys.readouterr().err.strip()

    for chosen, advice in {"03 06": "01 03 06", "06": "01 03 06", "2": "01 02", "7": "01 03 06 07"}.items():
        assert re.search(rf"^run_notebooks: notebook 0\d needs .* Run --notebooks {advice}\.$", answer(*chosen.split()))
    assert re.search(r"got no \S*m/01_draw.csv. Run --notebooks 01 03", answer("3", "1"))
    assert answer("1", "3", "6", "7") == "01 03 06 07"
    figures.mkdir(parents=True, exist_ok=True)
    (figures / "01_draw.csv").write_text("")
    assert answer("2", "3", "4") == "02 03 04"
    assert re.search(r"05 needs .*got no \S*m/03_directions.safetensors. Run --notebooks 03 05\.$", answer("5"))
    (figures / "03_directions.safetensors").write_text("")
    assert answer("5", "6") == "05 06"
    assert re.search(r"07 needs .*got no \S*cache/06_sweep_m-\w{8}.jsonl.gz. Run --notebooks 06 07\.$", answer("7"))
    cache.mkdir()
    (cache / f"06_sweep_{cache_key('a/m')}.jsonl.gz").write_text("")
    assert answer("7") == "07"


def test_settings_reach_the_notebooks_that_have_them(notebook, instant, tmp_path, capsys, monkeypatch):
    notebook("01_a.ipynb", "pass", 'MODEL = "bundled"\nPROMPTS = "builtin"\nLAYER = None')
    notebook("02_b.ipynb")
    monkeypatch.setenv("REFUSAL_N_DRAWS", "3")
    out = tmp_path / "f"
    main(["run", "--set", "LAYER=20", "CACHE_DIR=c", "--prompts", "paper", "--out", str(out), "--model", "a/m"])
    assert dict(instant) == {
        "01": {"MODEL": "a/m", "LAYER": 20, "PROMPTS": "paper"},
        "02": {"MODEL": "a/m", "N_DRAWS": 3, "FIGURES_DIR": str(out), "CACHE_DIR": os.path.abspath("c")},
    }
    assert (out / "m" / "notebooks" / "02_b.ipynb").exists()
    instant.clear()
    assert main(["run", "--prompts", "paper", "--notebooks", "2"]) == 1
    assert "got PROMPTS" in capsys.readouterr().err
    assert instant == []


def test_a_real_model_in_float32_on_a_cpu_with_bfloat16_instructions_gets_advice(
    notebook, instant, capsys, monkeypatch
):
    notebook("01_a.ipynb", "pass", f"{PARAMETERS}\nDTYPE = None")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for able, options, advised in (
        (True, ["--model", "a/m"], True),
        (False, ["--model", "a/m"], False),
        (True, ["--model", "a/m", "--set", "DTYPE=bfloat16"], False),
        (True, ["--model", "a/m", "--set", "DTYPE=float32"], False),
        (True, [], False),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: {"avx512_bf16": able, "amx_bf16": False})
        assert main(["run", "--fresh", *options]) == 0
        assert ("--set DTYPE=bfloat16" in capsys.readouterr().out) == advised, (able, options)


def test_figures_and_cache_are_in_the_project_folder_by_default(notebook, instant, tmp_path):
    notebook("01_a.ipynb")
    main(["run"])
    given = {"FIGURES_DIR": str(tmp_path / "figures"), "CACHE_DIR": str(tmp_path / ".cache")}
    assert instant == [("01", {"MODEL": "bundled", **given})]


def test_out_is_the_folder_of_all_models_or_already_that_of_this_one(tmp_path):
    assert figures_root(Settings(MODEL="google/gemma")) == FIGURES.resolve()
    for folder in (tmp_path, tmp_path / "gemma"):
        assert figures_root(Settings(MODEL="google/gemma", FIGURES_DIR=str(folder))) == tmp_path


def test_list_shows_every_notebook_and_runs_none(notebook, instant, capsys):
    notebook("01_a_b.ipynb")
    assert main(["run", "--list"]) == 0
    shown = capsys.readouterr().out
    assert [" ".join(line.split()) for line in shown.splitlines()] == [
        "01 a b",
        "question Why?",
        "needs nothing.",
        "takes a second.",
    ]
    assert instant == []


@pytest.mark.skipif(os.name == "nt", reason="the process is killed with a signal")
def test_a_killed_notebook_is_one_sentence_that_says_what_is_kept(notebook, capsys):
    notebook("01_good.ipynb")
    notebook("02_big.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", needs=AFTER_01)
    assert main(["run"]) == 1
    said = capsys.readouterr().err
    assert re.search(
        r"^02_big.ipynb: its process was killed in cell 3 of 3, most likely because memory ran out", said, re.M
    )
    assert "finished notebooks, cached activations and responses are kept" in said
    assert "Traceback" not in said


def test_a_foreign_kernel_called_python3_is_not_taken(notebook, tmp_path, monkeypatch):
    foreign = tmp_path / "share" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    spec = {"argv": ["/nothing/python", "-f", "{connection_file}"], "display_name": "Python 3", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    path = notebook("01_a.ipynb", "import sys; print('runs in', sys.executable)")
    run_notebook(path, tmp_path / "out", {})
    assert f"runs in {sys.executable}" in (tmp_path / "out" / "01_a.ipynb").read_text()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent as a signal")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_keeps_what_is_finished_and_ends_the_notebooks_process(notebook, tmp_path, end):
    notebook("01_good.ipynb")
    began = f"import os, time\nopen({str(tmp_path / 'part')!r}, 'w').write(str(os.getpid()))\n"
    began += f"os.rename({str(tmp_path / 'part')!r}, {str(tmp_path / 'began')!r})\ntime.sleep(120)"
    notebook("02_long.ipynb", began, needs=AFTER_01)
    code = (
        "import signal, sys; from pathlib import Path; from refusal_utils import notebooks; "
        "from refusal_utils.workflow import runner; "
        "from refusal_utils.workflow.command_line import main; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a shell's background job ignores it
        f"notebooks.NOTEBOOKS = Path({str(tmp_path / 'notebooks')!r}); "
        f"runner.FIGURES = Path({str(tmp_path / 'figures')!r}); sys.exit(main(['run']))"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        try:
            deadline = time.time() + 90
            while not (tmp_path / "began").exists() and time.time() < deadline:
                time.sleep(0.2)
            os.kill(process.pid, end)
            out, err = process.communicate(timeout=60)
            with pytest.raises(ProcessLookupError):
                os.kill(int((tmp_path / "began").read_text()), 0)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, err
    assert "What is finished is kept" in err
    assert "Traceback" not in err
    assert out.splitlines()[0].endswith("min")
    executed = tmp_path / "figures" / "bundled" / "notebooks"
    assert "refusal_utils" in json.loads((executed / "01_good.ipynb").read_text())["metadata"]
    assert read_record(executed / "02_long.ipynb") is None
