import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from refusal_utils.__main__ import main
from refusal_utils.plotting.look import FIGURES
from refusal_utils.workflow import notebooks as notebook_files
from refusal_utils.workflow import records as run_records
from refusal_utils.workflow import runner
from refusal_utils.workflow.notebooks import find_notebooks, parameter_defaults, parameter_names, read_promise
from refusal_utils.workflow.runner import (
    NotebookFailure,
    figures_root,
    from_anywhere,
    parse_settings,
    prompts_parameter,
    run_notebook,
)

PARAMETERS = 'MODEL = "bundled"  #@param\nN = 1\nFIGURES_DIR = "../figures"\nCACHE_DIR = "../cache"'


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """Writes a notebook of one cell into a suite of its own."""
    monkeypatch.setattr(notebook_files, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(runner, "FIGURES", tmp_path / "figures")

    def write(name: str, body: str, parameters: str = PARAMETERS):
        cells = [
            nbformat.v4.new_markdown_cell("# T\n\n**Question.** Why?\n\n**Needs** nothing. **Takes** a second."),
            nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell(body),
        ]
        for number, cell in enumerate(cells):
            cell["id"] = f"cell-{number}"
        path = tmp_path / "notebooks" / name
        path.parent.mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}}), path)
        return path

    return write


@pytest.fixture
def instant(monkeypatch):
    """Executes no notebook: copies it to where it would have gone, and says which were asked for."""
    asked = []

    def copy(path, out, parameters):
        asked.append((path.name[:2], parameters))
        out.mkdir(parents=True, exist_ok=True)
        (out / path.name).write_text(path.read_text())
        return 0.0

    monkeypatch.setattr(runner, "run_notebook", copy)
    return asked


def numbers(asked: list) -> list[str]:
    found = [number for number, _ in asked]
    asked.clear()
    return found


def test_find_notebooks_gives_them_in_order_or_by_number():
    names = [path.name[:2] for path in find_notebooks()]
    assert names == sorted(names)
    assert names[:3] == ["01", "02", "03"]
    assert [path.name[:2] for path in find_notebooks(["3", "01"])] == ["03", "01"]
    with pytest.raises(ValueError, match="find_notebooks: the number must be one of 01, 02, 03.*got '77'"):
        find_notebooks(["77"])


def test_run_notebook_passes_parameters_and_writes_the_executed_copy(notebook, tmp_path):
    path = notebook("01_a.ipynb", "print('got', N)")
    assert parameter_names(path) == {"MODEL", "N", "FIGURES_DIR", "CACHE_DIR"}
    assert parameter_defaults(path)["N"] == 1
    assert run_notebook(path, tmp_path / "out", {"N": 5}) < 1
    assert "got 5" in (tmp_path / "out" / "01_a.ipynb").read_text()
    assert "got 5" not in path.read_text()


def test_run_notebook_refuses_an_unknown_parameter(notebook, tmp_path):
    with pytest.raises(ValueError, match="run_notebook: parameters must be among .*MODEL, N; got MODLE"):
        run_notebook(notebook("01_a.ipynb", "pass"), tmp_path / "out", {"MODLE": "x"})


def test_a_failing_cell_is_named_with_its_source_and_error(notebook, tmp_path):
    with pytest.raises(
        NotebookFailure, match=r"01_a.ipynb failed in cell \d+:\n    assert N == 2, 'no'\nAssertionError: no"
    ):
        run_notebook(notebook("01_a.ipynb", "assert N == 2, 'no'"), tmp_path / "out", {})


def test_run_prints_a_line_a_notebook_stops_at_the_first_failure_and_goes_on_there(notebook, tmp_path, capsys):
    notebook("01_good.ipynb", "pass")
    notebook("02_bad.ipynb", "1 / 0")
    notebook("03_never.ipynb", "pass")
    assert main(["run"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split()[0] == "01_good"
    assert out.splitlines()[0].endswith("min")
    assert "03_never" not in out
    assert "02_bad.ipynb failed in cell" in err
    assert "ZeroDivisionError" in err
    notebook("02_bad.ipynb", "1 / 1")
    assert main(["run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["skipped" in line for line in lines[:3]] == [True, False, False]
    assert main(["run", "--notebooks", "9"]) == 1
    assert "the number must be one of" in capsys.readouterr().err


def test_a_second_run_leaves_out_what_is_done_and_fresh_does_not(notebook, instant):
    for name in ("01_a.ipynb", "02_b.ipynb"):
        notebook(name, "pass")
    main(["run"])
    assert numbers(instant) == ["01", "02"]
    main(["run"])
    assert numbers(instant) == []
    main(["run", "--fresh"])
    assert numbers(instant) == ["01", "02"]


def test_prompts_in_a_file_that_changed_run_again(notebook, instant, tmp_path):
    notebook("01_a.ipynb", "pass", 'MODEL = "bundled"\nPROMPTS = "builtin"')
    mine = tmp_path / "mine.jsonl"
    mine.write_text("{}")
    for content, expected in (("{}", ["01"]), ("{}", []), ("{} ", ["01"])):
        if mine.read_text() != content:
            mine.write_text(content)
        assert main(["run", "--prompts", str(mine)]) == 0
        assert numbers(instant) == expected


def test_a_run_that_lacks_what_earlier_notebooks_write_says_so_before_it_begins(notebook, instant, tmp_path, capsys):
    for number in range(1, 8):
        notebook(f"0{number}_a.ipynb", "pass")
    figures, cache = tmp_path / "figures" / "m", tmp_path / "cache"

    def said(*chosen: str) -> str:
        capsys.readouterr()
        done = main(["run", "--model", "a/m", "--fresh", "--notebooks", *chosen])
        assert done == (0 if instant else 1)
        return capsys.readouterr().err.strip() or " ".join(numbers(instant))

    for chosen, advice in {"03 06": "01 03 06", "06": "01 03 06", "2": "01 02", "7": "01 03 06 07"}.items():
        assert re.search(rf"^run_notebooks: notebook 0\d must .* Run --notebooks {advice}\.$", said(*chosen.split()))
    assert "got no ../figures/m/01_draw.csv. Run --notebooks 01 03" in said("3", "1").replace(
        os.path.relpath(tmp_path), ".."
    )
    assert said("1", "3", "6", "7") == "01 03 06 07"
    figures.mkdir(parents=True, exist_ok=True)
    (figures / "01_draw.csv").write_text("")
    assert said("2", "3", "4") == "02 03 04"
    assert re.search(r"05 must .*got no \S*m/03_directions.safetensors. Run --notebooks 03 05\.$", said("5"))
    (figures / "03_directions.safetensors").write_text("")
    assert said("5", "6") == "05 06"
    assert re.search(r"07 must .*got no \S*cache/06_sweep_m.jsonl.gz.* Run --notebooks 06 07\.$", said("7"))
    cache.mkdir()
    for name in ("sweep", "matched"):
        (cache / f"06_{name}_m.jsonl.gz").write_text("")
    assert said("7") == "07"


@pytest.mark.parametrize("path", find_notebooks(), ids=lambda path: path.stem)
def test_what_a_notebook_reads_of_earlier_ones_is_known(path):
    """The files of other notebooks that its code names are those that a run checks for."""
    cells = [cell for cell in notebook_files.read_cells(path) if cell["cell_type"] == "code"]
    named = set(
        re.findall(r"\b\d\d_\w+(?:\{\w+\})?\.(?:jsonl\.gz|csv|safetensors)", str([cell["source"] for cell in cells]))
    )
    read = {name for name in named if name[:2] != path.name[:2]}
    assert read == set(run_records.READS.get(path.name[:2], ()))


def test_a_changed_notebook_runs_again_with_all_that_follow(notebook, instant):
    for name in ("01_a.ipynb", "02_b.ipynb", "03_c.ipynb"):
        notebook(name, "pass")
    main(["run"])
    instant.clear()
    notebook("02_b.ipynb", "pass  # changed")
    main(["run"])
    assert numbers(instant) == ["02", "03"]


def test_an_earlier_notebook_run_on_its_own_makes_later_ones_run_again(notebook, instant):
    for name in ("01_a.ipynb", "02_b.ipynb"):
        notebook(name, "pass")
    main(["run"])
    main(["run", "--notebooks", "1", "--fresh"])
    instant.clear()
    main(["run"])
    assert numbers(instant) == ["02"]


def test_changed_parameters_code_or_renderer_run_again(notebook, instant, monkeypatch):
    notebook("01_a.ipynb", "pass")
    main(["run"])
    instant.clear()
    main(["run", "--set", "N=2"])
    assert numbers(instant) == ["01"]
    monkeypatch.setattr(run_records, "_code", lambda: "changed")
    main(["run", "--set", "N=2"])
    assert numbers(instant) == ["01"]
    monkeypatch.setenv("PLOTLY_RENDERER", "notebook")
    main(["run", "--set", "N=2"])
    assert numbers(instant) == ["01"]


def test_code_is_hashed_by_what_stands_in_it(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("x = 1")
    monkeypatch.setattr(run_records, "PACKAGE", tmp_path)
    before = run_records._code.__wrapped__()
    assert before == run_records._code.__wrapped__()
    (tmp_path / "a.py").write_text("x = 2")
    assert before != run_records._code.__wrapped__()


def test_a_notebook_whose_figures_or_cache_are_gone_runs_again(notebook, instant, tmp_path):
    notebook("01_a.ipynb", "pass")
    left = [tmp_path / "figures" / "bundled" / "01_map.csv", tmp_path / "cache" / "01_sweep_bundled.csv"]
    for each in left:
        each.parent.mkdir(parents=True)
    for each in left:
        for every in left:
            every.write_text("")
        main(["run", "--fresh"])
        instant.clear()
        main(["run"])
        assert numbers(instant) == []
        each.unlink()
        main(["run"])
        assert numbers(instant) == ["01"]


def test_a_local_model_that_was_trained_again_runs_again(notebook, instant, tmp_path):
    notebook("01_a.ipynb", "pass")
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    main(["run", "--model", str(folder)])
    assert instant[0][1]["MODEL"] == str(folder)
    instant.clear()
    main(["run", "--model", str(folder)])
    assert numbers(instant) == []
    (folder / "model.safetensors").write_text("more")
    main(["run", "--model", str(folder)])
    assert numbers(instant) == ["01"]


def test_links_to_pictures_hold_in_the_executed_copy(notebook, tmp_path):
    path = notebook("01_good.ipynb", "pass")
    book = json.loads(path.read_text())
    book["cells"][0]["source"] = ["# T\n", "![Map](../figures/bundled/03_map.png) and [next](02_next.ipynb)"]
    executed = tmp_path / "figures" / "bundled" / "notebooks" / path.name
    executed.parent.mkdir(parents=True)
    (executed.parent.parent / "03_map.png").touch()
    executed.write_text(json.dumps(book))
    run_records.write_record(path, executed, {}, "inputs")
    shown = "".join(json.loads(executed.read_text())["cells"][0]["source"])
    link = shown.split("](")[1].split(")")[0]
    assert (executed.parent / link).resolve().is_file()
    assert shown.endswith("and [next](02_next.ipynb)")


def test_a_half_written_executed_notebook_is_no_record(tmp_path):
    path = tmp_path / "01_a.ipynb"
    assert run_records.read_record(path) is None
    for text in ('{"metadata": ', '{"metadata": {}}', '{"metadata": {"refusal_utils": {"digest": "x"}}}'):
        path.write_text(text)
        assert run_records.read_record(path) is None


def test_parameters_reach_the_notebooks_that_have_them(notebook, instant, tmp_path, capsys):
    notebook("01_a.ipynb", "pass", 'MODEL = "bundled"\nPROMPTS = "builtin"\nLAYER = None')
    notebook("02_b.ipynb", "pass")
    (tmp_path / "mine").mkdir()
    main(["run", "--set", "LAYER=20", "N=3", "--prompts", "paper", "--out", str(tmp_path / "f"), "--model", "a/m"])
    assert dict(instant) == {
        "01": {"MODEL": "a/m", "LAYER": 20, "PROMPTS": "paper"},
        "02": {"MODEL": "a/m", "N": 3, "FIGURES_DIR": str(tmp_path / "f")},
    }
    assert (tmp_path / "f" / "m" / "notebooks" / "02_b.ipynb").exists()
    instant.clear()
    assert main(["run", "--set", "LAYRE=20"]) == 1
    assert (
        "run_notebooks: a parameter must be one of CACHE_DIR, LAYER, N, PROMPTS; got LAYRE." in capsys.readouterr().err
    )
    assert main(["run", "--prompts", "paper", "--notebooks", "2"]) == 1
    assert "got PROMPTS" in capsys.readouterr().err
    assert main(["run", "--prompts", "papre"]) == 1
    assert "a folder with a file for every category, or a .jsonl or .csv file; got 'papre'" in capsys.readouterr().err
    assert instant == []


def test_settings_that_cannot_be_meant_are_refused():
    assert parse_settings(["GAPS=[0.5, 1]", "NAME=a=b", "EMPTY="]) == {"GAPS": [0.5, 1], "NAME": "a=b", "EMPTY": ""}
    with pytest.raises(ValueError, match="parse_settings: a setting must read NAME=VALUE; got 'SEED'"):
        parse_settings(["SEED"])
    with pytest.raises(ValueError, match="parse_settings: MODEL must be set by its own option.*Use --model"):
        parse_settings(["MODEL=bundled"])


def test_out_is_the_folder_of_all_models_or_already_that_of_this_one(tmp_path):
    assert figures_root(None, "google/gemma") == FIGURES.resolve()
    assert figures_root(tmp_path, "google/gemma") == tmp_path
    assert figures_root(tmp_path / "gemma", "google/gemma") == tmp_path


def test_paths_are_made_absolute_and_hub_ids_are_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert from_anywhere("./mine") == prompts_parameter("mine") == (tmp_path / "mine").as_posix()
    assert from_anywhere("org/mine") == "org/mine"
    assert prompts_parameter("paper") == "paper"
    (tmp_path / "mine.csv").write_text("")
    assert prompts_parameter("mine.csv") == (tmp_path / "mine.csv").as_posix()
    with pytest.raises(ValueError, match="^prompts_parameter: .*got 'mine.csv.gz'"):
        prompts_parameter("mine.csv.gz")


@pytest.mark.parametrize("path", find_notebooks(), ids=lambda path: path.stem)
def test_every_title_says_question_needs_and_minutes(path):
    promise = read_promise(path)
    assert promise.question.endswith("?")
    assert "**" not in promise.needs + promise.takes
    assert "CPU" in promise.takes


def test_list_shows_every_notebook_and_runs_none(notebook, instant, capsys):
    notebook("01_a_b.ipynb", "pass")
    assert main(["run", "--list"]) == 0
    shown = capsys.readouterr().out
    assert [" ".join(line.split()) for line in shown.splitlines()] == [
        "01 a b",
        "question Why?",
        "needs nothing.",
        "takes a second.",
    ]
    assert instant == []


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent as a signal")
def test_ctrl_c_keeps_what_is_done(notebook, tmp_path):
    notebook("01_good.ipynb", "pass")
    notebook("02_long.ipynb", f"open({str(tmp_path / 'began')!r}, 'w').close()\nimport time\ntime.sleep(120)")
    code = (
        "import signal, sys; from pathlib import Path; from refusal_utils import notebook_files, runner; "
        "from refusal_utils.__main__ import main; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a shell's background job ignores it
        f"notebook_files.NOTEBOOKS = Path({str(tmp_path / 'notebooks')!r}); "
        f"runner.FIGURES = Path({str(tmp_path / 'figures')!r}); sys.exit(main(['run']))"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        try:
            deadline = time.time() + 90
            while not (tmp_path / "began").exists() and time.time() < deadline:
                time.sleep(0.2)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            out, err = process.communicate(timeout=60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, err
    assert "stopped; what is finished is kept" in err
    assert "Traceback" not in err
    assert out.splitlines()[0].endswith("min")
    executed = tmp_path / "figures" / "bundled" / "notebooks"
    assert "refusal_utils" in json.loads((executed / "01_good.ipynb").read_text())["metadata"]
    assert run_records.read_record(executed / "02_long.ipynb") is None
