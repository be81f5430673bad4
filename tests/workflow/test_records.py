import json

import pytest

from refusal_utils.workflow import records
from refusal_utils.workflow.command_line import main
from refusal_utils.workflow.records import Run, read_record


def numbers(asked: list) -> list[str]:
    found = [number for number, _ in asked]
    asked.clear()
    return found


def test_a_second_run_skips_what_is_finished_and_fresh_does_not(notebook, instant):
    for name in ("01_a.ipynb", "02_b.ipynb"):
        notebook(name)
    for options, expected in (([], ["01", "02"]), ([], []), (["--fresh"], ["01", "02"])):
        assert main(["run", *options]) == 0
        assert numbers(instant) == expected


def test_a_changed_notebook_runs_again_with_those_that_need_it(notebook, instant):
    needs = {"01_a": "nothing", "02_b": "notebook 01", "03_c": "the cache of notebook 02", "04_d": "nothing"}
    for name, text in needs.items():
        notebook(f"{name}.ipynb", needs=text)
    main(["run"])
    instant.clear()
    notebook("02_b.ipynb", "pass  # changed", needs="notebook 01")
    main(["run"])
    assert numbers(instant) == ["02", "03"]


def test_a_notebook_run_on_its_own_makes_those_that_need_it_run_again(notebook, instant):
    for name, needs in (("01_a.ipynb", "nothing"), ("02_b.ipynb", "notebook 01"), ("03_c.ipynb", "nothing")):
        notebook(name, needs=needs)
    main(["run"])
    main(["run", "--notebooks", "1", "--fresh"])
    instant.clear()
    main(["run"])
    assert numbers(instant) == ["02"]


def test_changed_parameters_code_or_renderer_run_again(notebook, instant, monkeypatch):
    notebook("01_a.ipynb")
    main(["run"])
    instant.clear()
    main(["run", "--set", "N_DRAWS=2"])
    assert numbers(instant) == ["01"]
    monkeypatch.setattr(records, "_code", lambda: "changed")
    main(["run", "--set", "N_DRAWS=2"])
    assert numbers(instant) == ["01"]
    monkeypatch.setenv("PLOTLY_RENDERER", "notebook")
    main(["run", "--set", "N_DRAWS=2"])
    assert numbers(instant) == ["01"]


def test_code_is_hashed_by_its_content(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("x = 1")
    monkeypatch.setattr(records, "PACKAGE", tmp_path)
    before = records._code.__wrapped__()
    assert before == records._code.__wrapped__()
    (tmp_path / "a.py").write_text("x = 2")
    assert before != records._code.__wrapped__()


@pytest.mark.parametrize("name", ["PROMPTS", "SUFFIXES"])
def test_prompts_in_a_changed_file_run_again(name, notebook, instant, tmp_path):
    notebook("01_a.ipynb", "pass", f'MODEL = "bundled"\n{name} = "builtin"')
    mine = tmp_path / "mine.jsonl"
    mine.write_text('{"text": "Thanks."}')
    for content, expected in (("", ["01"]), ("", []), (" ", ["01"])):
        if content:
            mine.write_text(mine.read_text() + content)
        assert main(["run", "--set", f"{name}={mine}"]) == 0
        assert numbers(instant) == expected


def test_a_local_model_that_was_trained_again_runs_again(notebook, instant, tmp_path):
    notebook("01_a.ipynb")
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    for weights, expected in (("", ["01"]), ("", []), ("more", ["01"])):
        if weights:
            (folder / "model.safetensors").write_text(weights)
        main(["run", "--model", str(folder)])
        assert numbers(instant) == expected


def test_a_changed_gguf_file_runs_again_in_a_folder_without_its_ending(notebook, instant, tmp_path):
    notebook("01_a.ipynb")
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"GGUF")
    for content, expected in ((b"GGUF", ["01"]), (b"GGUF", []), (b"GGUF more", ["01"])):
        if path.read_bytes() != content:
            path.write_bytes(content)
        assert main(["run", "--model", str(path)]) == 0
        assert numbers(instant) == expected
    assert (tmp_path / "figures" / "mine" / "notebooks" / "01_a.ipynb").is_file()


def test_a_notebook_whose_figures_or_cache_are_gone_runs_again(notebook, instant, tmp_path):
    notebook("01_a.ipynb")
    left = [tmp_path / "figures" / "bundled" / "01_map.csv", tmp_path / ".cache" / "01_sweep_bundled.csv"]
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


def test_picture_links_of_the_executed_copy_point_at_the_figures_beside_it(notebook, tmp_path):
    path = notebook("01_good.ipynb")
    book = json.loads(path.read_text())
    book["cells"][0]["source"] = ["# T\n", "![Map](../figures/bundled/03_map.png) and [next](02_next.ipynb)"]
    run = Run(path, {}, tmp_path / "figures" / "bundled", tmp_path / "cache")
    run.executed.parent.mkdir(parents=True)
    (run.figures / "03_map.png").touch()
    run.executed.write_text(json.dumps(book))
    run.write_record("inputs")
    shown = "".join(json.loads(run.executed.read_text())["cells"][0]["source"])
    link = shown.split("](")[1].split(")")[0]
    assert (run.executed.parent / link).resolve().is_file()
    assert shown.endswith("and [next](02_next.ipynb)")


def test_a_half_written_executed_notebook_holds_no_record(tmp_path):
    path = tmp_path / "01_a.ipynb"
    assert read_record(path) is None
    for text in ('{"metadata": ', '{"metadata": {}}', '{"metadata": {"refusal_utils": {"digest": "x"}}}'):
        path.write_text(text)
        assert read_record(path) is None
