"""Every notebook is executed from an empty cache, in order, on the bundled model."""

import gzip
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from refusal_utils.model.artifacts import read_seeds
from refusal_utils.model.chat_model import load_chat_model
from refusal_utils.notebooks import NotebookFailure, find_notebooks, read_cells
from refusal_utils.prompts.categories import CATEGORY_IDS
from refusal_utils.prompts.draws import draw_digest
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.tradeoff.sweep import Sweep
from refusal_utils.workflow.planning.calibration import facts_of
from refusal_utils.workflow.planning.counts import count_rows_of
from refusal_utils.workflow.planning.scene import Loop, Scene
from refusal_utils.workflow.records import read_record
from refusal_utils.workflow.runner import run_notebook
from refusal_utils.workflow.settings import Settings

from .browser import Page, open_browser
from .figure_views import TEXTS, FigurePage, overlapping
from .notebook_runs import run_without_pictures
from .readings import bold_numbers, is_printed, printed_numbers, readings, source
from .tables import differences
from .takeaways import missing_numbers

pytestmark = pytest.mark.slow
REPO = Path(__file__).parent.parent


TOKEN = "hf_" + "NobodyMayReadThis" * 2
# What every notebook's process runs first: whoever wants to reach another machine is noted, and fails.
NO_NETWORK = """
import socket

def refuse(self, address, connect=socket.socket.connect):
    if self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "localhost", "::1"):
        return connect(self, address)
    with open({attempts!r}, "a") as file:
        file.write(f"{{address}}\\n")
    raise OSError(101, "Network is unreachable")

socket.socket.connect = refuse
"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> Path:
    """The folder with everything that a run of all notebooks from scratch wrote."""
    root, own = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("own")
    (own / "sitecustomize.py").write_text(NO_NETWORK.format(attempts=str(own / "attempts")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(own), prepend=os.pathsep)
        patch.setenv("HF_TOKEN", TOKEN)
        run_without_pictures(Settings(FIGURES_DIR=str(root / "figures"), CACHE_DIR=str(root / "cache")))
    assert not (own / "attempts").exists(), (own / "attempts").read_text()
    return root


def test_notebooks_run_from_an_empty_cache_and_write_the_figures_and_numbers_that_are_committed(executed):
    written = list((executed / "figures" / "bundled").iterdir())
    listed = subprocess.run(
        ["git", "ls-files", "figures/bundled"], cwd=REPO, capture_output=True, text=True, check=False
    )
    committed = [Path(line) for line in listed.stdout.splitlines()]
    if not committed:
        pytest.skip("not a git checkout")
    reported = {"comparison.csv", "claims.csv"}  # by `python -m refusal_utils report`
    assert {p.name for p in written if p.suffix == ".csv"} == {
        p.name for p in committed if p.suffix == ".csv"
    } - reported
    pages = {"14_cards"}  # without a picture
    assert {p.stem for p in written if p.suffix == ".html"} - pages == {p.stem for p in committed if p.suffix == ".png"}
    assert (executed / "figures" / "bundled" / "plotly.min.js").is_file()
    assert not [p.name for p in written if p.suffix == ".html" and p.stat().st_size > 300_000]


def test_no_file_that_a_run_writes_holds_the_token_of_the_hub(executed):
    for path in executed.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert TOKEN.encode() not in (gzip.decompress(content) if path.suffix == ".gz" else content)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_browser() as opened:
        yield opened


def test_every_figure_opens_from_disk_draws_reads_well_and_does_what_it_offers(executed, page):
    figures = [
        path
        for path in sorted((executed / "figures" / "bundled").glob("*.html"))
        if path.stem not in ("14_cards", "comparison")
    ]
    assert len(figures) > 40
    wrong = {path.stem: FigurePage(page.open(path)).problems() for path in figures}
    assert {name: problems for name, problems in wrong.items() if problems} == {}


def test_explorer_and_latent_cards_open_from_disk_and_are_used_without_complaints(executed, page):
    page.open(executed / "figures" / "explorer.html")
    marks = "[...document.querySelectorAll('#plot [data-mark]')].map(node => node.getAttribute('d'))"
    drawn = []
    for strength in (0, 2):
        page.use("#all", strength)
        drawn.append(page.run(marks))
        assert overlapping(page.run(TEXTS.replace(".js-plotly-plot svg", "#plot"))) == []
    assert len(drawn[0]) >= len(CATEGORY_IDS)
    assert drawn[0] != drawn[1]
    assert not page.complaints + page.requests
    page.open(executed / "figures" / "bundled" / "14_cards.html")
    first = "document.querySelector('#cards tbody td').textContent"
    before = page.run(first)
    page.run("document.querySelectorAll('#cards th')[3].click()")
    page.run("document.querySelectorAll('#cards th')[3].click()")
    assert page.run(first) != before
    page.use("#filter", "humanizing")
    shown = page.run("[...document.querySelectorAll('#cards tbody tr')].filter(row => row.checkVisibility()).length")
    assert page.run("document.querySelector('#shown').textContent").startswith(f"{shown} of ")
    assert 0 < shown < page.run("document.querySelectorAll('#cards tbody tr').length")
    assert not page.complaints + page.requests


@pytest.mark.parametrize("path", find_notebooks(), ids=lambda path: path.stem)
def test_what_you_should_see_is_what_the_notebook_shows(executed, path):
    """Every number in bold print under "What you should see" is printed in that section, so rounded."""
    cells = read_cells(executed / "figures" / "bundled" / "notebooks" / path.name)
    found = [(text, printed_numbers(section)) for text, section in readings(cells)]
    wrong = {text: [each for each in bold_numbers(text) if not is_printed(each, printed)] for text, printed in found}
    assert {text: numbers for text, numbers in wrong.items() if numbers} == {}


@pytest.mark.parametrize("path", find_notebooks(), ids=lambda path: path.stem)
def test_every_number_of_a_takeaway_is_in_a_table(executed, path):
    folder = executed / "figures" / "bundled"
    cells = read_cells(folder / "notebooks" / path.name)
    start = next(number for number, cell in enumerate(cells) if "## Takeaways" in source(cell))
    (shown,) = [data["text/markdown"] for cell in cells[start:] for data in outputs(cell) if "text/markdown" in data]
    assert missing_numbers("".join(shown), path.stem, folder) == []


def outputs(cell: dict) -> list[dict]:
    return [output["data"] for output in cell.get("outputs", []) if "data" in output]


def test_committed_tables_are_those_of_this_code_and_model(executed):
    """Bit for bit on the processor that made them; elsewhere a near tie of a response may fall otherwise.

    Tables of notebooks 01 to 06: texts equal, numbers within a thousandth of the largest of their column. Later ones,
    which count responses: a fiftieth, and 2 % of the texts. The places of UMAP's points depend on the processor.
    """
    found = differences(executed / "figures" / "bundled", REPO / "figures" / "bundled")
    found = found.drop(index=["comparison.csv", "claims.csv"])  # by `python -m refusal_utils report`
    counted = found.index >= "07"
    within = (found["numbers"] <= np.where(counted, 0.02, 1e-3)) & (found["texts"] <= np.where(counted, 0.02, 0))
    within["05_umap.csv"] = found.loc["05_umap.csv", "texts"] == 0
    assert found[~within].to_dict("index") == {}


def test_every_table_names_its_seed(executed):
    folder = executed / "figures" / "bundled"
    seeds = read_seeds(folder)
    assert {path.stem for path in folder.glob("*.csv")} - {"14_cards"} <= set(seeds)  # cards are made of other tables
    assert seeds == read_seeds(REPO / "figures" / "bundled")


def test_steering_rates_and_responses_say_what_they_were_measured_with(executed):
    folder = executed / "figures" / "bundled"
    rates = pd.read_csv(folder / "07_rates.csv", dtype={"draw": str})
    digest = draw_digest(pd.read_csv(folder / "01_draw.csv"))
    assert rates[["judge", "max_new_tokens", "draw"]].drop_duplicates().to_numpy().tolist() == [["phrases", 50, digest]]
    for name in ("sweep", "matched"):
        assert Sweep.load(executed / "cache" / f"07_{name}_bundled.jsonl.gz").notes["draw"] == digest


def test_notebook_03_map_equals_an_independent_route(executed):
    """The written map against plain Hugging Face hidden states and numpy, one prompt at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from refusal_utils.model.chat_model import BUNDLED_WEIGHTS

    folder = executed / "figures" / "bundled"
    written = pd.read_csv(folder / "03_cosine_matrix.csv", index_col=0)
    state = json.loads((BUNDLED_WEIGHTS / "decision_state.json").read_text())
    texts = pd.read_csv(folder / "01_draw.csv").merge(load_prompts()[["id", "text"]], on="id")
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_WEIGHTS)
    model = AutoModelForCausalLM.from_pretrained(BUNDLED_WEIGHTS, dtype=torch.float32)
    vectors = []
    for text in texts["text"]:
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(chat, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            hidden = model(ids, output_hidden_states=True).hidden_states
        vectors.append(hidden[state["layer"]][0, state["pos"]].double().numpy())
    by_category = pd.DataFrame(vectors).groupby(texts["category"]).mean()
    raw = (by_category.loc[list(CATEGORY_IDS)] - by_category.loc["benign"]).to_numpy()
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(written.to_numpy(), unit @ unit.T, atol=1e-4)


def test_the_report_finds_every_number_that_the_notebooks_make(executed):
    from refusal_utils.paper.report import write_report

    table, page, counts = write_report("bundled", executed / "figures")
    frame = pd.read_csv(table, dtype={"table": str})
    assert list(counts.index)[:10] == ["1", "2", "3", "4", "5", "8", "10", "11", "12", "14"]
    assert frame.loc[frame["table"].str.contains("Table"), "ours"].notna().all()
    assert set(frame["verdict"]) == {"not comparable"}  # the bundled model says nothing about Gemma
    assert frame.loc[frame["table"] == "1", "ours"].notna().all()
    assert "they say nothing about Gemma or Llama" in page.read_text()


SHARED = {"capture_activations", "generate"}  # of two notebooks that need the same rows, whichever is first runs them


def test_the_rows_that_notebooks_ran_are_those_of_the_plan(executed):
    """The spy is the record that every loop through the model leaves; counts that depend on answers are usual ones.

    Rows of shared loops are compared over all notebooks, since two that run side by side may begin in either order;
    notebook 02 runs before the others that need its rows.
    """
    facts, numbers = facts_of(load_chat_model(), None, None), [each.name[:2] for each in find_notebooks()]
    planned: dict[tuple[str, str], list[Loop]] = {}
    for number, loops in count_rows_of(Scene.of(Settings(), facts), numbers).items():
        for loop in loops:
            planned.setdefault((_whose(number, loop.name), loop.name), []).append(loop)
    done: dict[tuple[str, str], int] = {}
    for path in find_notebooks():
        record = read_record(executed / "figures" / "bundled" / "notebooks" / path.name)
        for name, rows in record.work["rows"].items():
            key = _whose(path.name[:2], name), name
            done[key] = done.get(key, 0) + rows
    assert set(planned) == set(done)
    assert ("02", "capture_activations") in planned
    for key, loops in planned.items():
        n, is_exact = sum(loop.rows for loop in loops), all(loop.is_exact for loop in loops)
        assert n == done[key] if is_exact else done[key] / 2 <= n <= 2 * done[key], key


def _whose(number: str, name: str) -> str:
    """The notebook whose rows are compared, or "all"."""
    return "all" if name in SHARED and number != "02" else number


def test_executed_notebooks_hold_their_figures_and_hide_harmful_text(executed):
    harmful = load_prompts("hate_speech")["text"]
    for path in sorted((executed / "figures" / "bundled" / "notebooks").glob("*.ipynb")):
        shown = path.read_text()
        assert "application/vnd.plotly.v1+json" in shown
        assert len(shown) < 5_000_000
        assert not [text for text in harmful if json.dumps(text)[1:-1] in shown]


def test_a_notebook_without_a_draw_names_the_notebook_that_makes_it(tmp_path):
    notebook = find_notebooks(["03"])[0]
    parameters = {"FIGURES_DIR": str(tmp_path), "CACHE_DIR": str(tmp_path / "c")}
    with pytest.raises(NotebookFailure, match=r"read_draw: .* Run notebook 01 first\.$"):
        run_notebook(notebook, tmp_path, parameters)


def test_a_failing_check_stops_the_notebook_and_names_the_cell(executed, tmp_path):
    """Before control of the checks in prose: with a draw whose categories are shuffled, notebook 03 must not pass."""
    draw = pd.read_csv(executed / "figures" / "bundled" / "01_draw.csv", keep_default_na=False)
    shuffled = draw["category"].sample(frac=1, random_state=0).to_numpy()
    (tmp_path / "bundled").mkdir()
    draw.assign(category=shuffled).to_csv(tmp_path / "bundled" / "01_draw.csv", index=False)
    parameters = {"FIGURES_DIR": str(tmp_path), "CACHE_DIR": str(executed / "cache")}
    failure = r"(?s)^03_direction_geometry.ipynb failed in cell \d+:.*check\(.*\nAssertionError: does not hold: "
    with pytest.raises(NotebookFailure, match=failure):
        run_notebook(find_notebooks(["03"])[0], tmp_path, parameters)
