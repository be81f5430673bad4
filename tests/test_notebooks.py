"""Every notebook is executed from an empty cache, in order, on the bundled model."""

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from refusal_utils.prompts.categories import BENIGN, CATEGORY_IDS
from refusal_utils.prompts.draws import draw_digest
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.prompts.public_sources import SOURCES
from refusal_utils.tradeoff.sweep import Sweep
from refusal_utils.workflow.notebooks import NotebookFailure, find_notebooks, read_cells
from refusal_utils.workflow.runner import run_notebook, run_notebooks
from refusal_utils.workflow.settings import Settings

from .public_tables import write_paper_files
from .readings import bold_numbers, is_printed, printed_numbers, readings

pytestmark = pytest.mark.slow
REPO = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> Path:
    """The folder with everything that a run of all notebooks from scratch wrote."""
    root = tmp_path_factory.mktemp("run")
    run_notebooks(Settings(FIGURES_DIR=str(root / "figures"), CACHE_DIR=str(root / "cache")))
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
    assert {p.stem for p in written if p.suffix == ".html"} == {p.stem for p in committed if p.suffix == ".png"}
    assert (executed / "figures" / "bundled" / "plotly.min.js").is_file()
    assert not [p.name for p in written if p.suffix == ".html" and p.stat().st_size > 300_000]


@pytest.mark.parametrize("path", find_notebooks(), ids=lambda path: path.stem)
def test_what_you_should_see_is_what_the_notebook_shows(executed, path):
    """Every number in bold print under "What you should see" is printed in that section, so rounded."""
    cells = read_cells(executed / "figures" / "bundled" / "notebooks" / path.name)
    found = [(text, printed_numbers(section)) for text, section in readings(cells)]
    wrong = {text: [each for each in bold_numbers(text) if not is_printed(each, printed)] for text, printed in found}
    assert {text: numbers for text, numbers in wrong.items() if numbers} == {}


@pytest.mark.parametrize(
    ("name", "columns", "atol"),
    [
        ("01_draw", ["id"], 0),
        ("03_cosine_matrix", list(CATEGORY_IDS), 1e-3),
        ("03_stability", list(CATEGORY_IDS), 1e-3),
        ("07_rates", ["RR", "ORR"], 0.02),  # shares of 100 prompts: a near tie may fall otherwise on another processor
    ],
)
def test_committed_numbers_are_those_of_this_code_and_model(executed, name, columns, atol):
    committed, written = (pd.read_csv(folder / "figures" / "bundled" / f"{name}.csv") for folder in (REPO, executed))
    pd.testing.assert_frame_equal(committed[columns], written[columns], rtol=0, atol=atol)


def test_steering_rates_and_responses_say_what_they_were_measured_with(executed):
    folder = executed / "figures" / "bundled"
    rates = pd.read_csv(folder / "07_rates.csv", dtype={"draw": str})
    digest = draw_digest(pd.read_csv(folder / "01_draw.csv"))
    assert rates[["judge", "max_new_tokens", "draw"]].drop_duplicates().to_numpy().tolist() == [["phrases", 50, digest]]
    for name in ("sweep", "matched"):
        assert Sweep.load(executed / "cache" / f"07_{name}_bundled.jsonl.gz").notes["draw"] == digest


def test_notebook_03_map_equals_an_independent_route(executed):
    """The written map against plain Hugging Face hidden states and numpy, one prompt at a time."""
    import numpy as np
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
    differences = (by_category.loc[list(CATEGORY_IDS)] - by_category.loc["benign"]).to_numpy()
    unit = differences / np.linalg.norm(differences, axis=1, keepdims=True)
    np.testing.assert_allclose(written.to_numpy(), unit @ unit.T, atol=1e-4)


def test_the_report_finds_every_number_that_the_notebooks_make(executed):
    from refusal_utils.paper.report import write_report

    table, page, counts = write_report("bundled", executed / "figures")
    frame = pd.read_csv(table, dtype={"table": str})
    assert list(counts.index)[:6] == ["1", "2", "8", "10", "11", "12"]
    assert frame.loc[frame["table"].str.contains("Table"), "ours"].notna().all()
    assert set(frame["verdict"]) == {"not comparable"}  # the bundled model says nothing about Gemma
    assert frame.loc[frame["table"] == "1", "ours"].notna().all()
    assert "they say nothing about Gemma or Llama" in page.read_text()


def test_executed_notebooks_hold_their_figures_and_hide_harmful_text(executed):
    harmful = load_prompts("hate_speech")["text"]
    for path in sorted((executed / "figures" / "bundled" / "notebooks").glob("*.ipynb")):
        shown = path.read_text()
        assert "application/vnd.plotly.v1+json" in shown
        assert len(shown) < 5_000_000
        assert not [text for text in harmful if json.dumps(text)[1:-1] in shown]


def test_notebooks_refuse_a_draw_that_is_not_there_or_of_other_prompts(tmp_path):
    notebook = find_notebooks(["03"])[0]
    parameters = {"FIGURES_DIR": str(tmp_path), "CACHE_DIR": str(tmp_path / "c")}
    with pytest.raises(NotebookFailure, match=r"read_draw: .* Run notebook 01 first\.$"):
        run_notebook(notebook, tmp_path, parameters)
    (tmp_path / "bundled").mkdir()
    draw = pd.DataFrame({"id": ["advice-xstest-1"], "category": ["advice"], "prompts": ["paper"]})
    draw.to_csv(tmp_path / "bundled" / "01_draw.csv", index=False)
    with pytest.raises(
        NotebookFailure, match=r"read_draw: the draw must be from the prompts 'builtin'; got prompts 'paper'"
    ):
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


def test_the_papers_prompts_go_through_the_notebooks(tmp_path):
    """Tables of the public sets' form and size, as files, with built-in prompts among their texts; nothing of the hub."""
    own = load_prompts().sample(frac=1, random_state=0)
    texts = {str(kind): iter(rows["text"]) for kind, rows in own.groupby("kind")}

    def text(name: str, row: dict) -> str:
        source = SOURCES[name]
        category = source.categories.get(str(row[source.label]), "")
        kept = source.keep is None or str(row[source.keep[0]]) == source.keep[1]
        kind = source.benign_kind if category == BENIGN else category
        before = str(row[source.text])
        return next(texts[kind], before) if kept and kind in texts else before

    write_paper_files(tmp_path / "cache" / "paper_files", text)
    small = {"N_BOOTSTRAP": 40, "N_BUCKET": 12, "GAPS": [0.45, 1.0], "CONTROL_GAPS": [1.0], "MAX_NEW_TOKENS": 20}
    small |= {"N_POOL": 60, "N_CONTROLS": 2}
    places = {"FIGURES_DIR": str(tmp_path), "CACHE_DIR": str(tmp_path / "cache")}
    run_notebooks(Settings(PROMPTS="paper", **places, **small), ["01", "02", "03", "04", "07"])
    draw = pd.read_csv(tmp_path / "bundled" / "01_draw.csv")
    assert draw["category"].value_counts().to_dict() == dict.fromkeys((*CATEGORY_IDS, BENIGN), 32)
    assert draw["id"].str.contains("-xstest-|-wildguard-|-sorrybench-|-coconot").all()
    oracles = pd.read_csv(tmp_path / "bundled" / "04_oracle_buckets.csv")
    assert {"BR-BC", "XSTest HR-BC"} <= set(oracles["reference"])  # Table 10's gold, on the paper's own data
    halves = pd.read_csv(tmp_path / "bundled" / "03_stability_table.csv").set_index("category")["n"]
    small = ["hate_speech", "advice"]  # SORRY-Bench has 50 of each, of the others there are 64 for 32 against 32
    assert halves[small].to_list() == [25, 25]
    assert set(halves.drop(small)) == {32}
    assert (tmp_path / "cache" / "07_sweep_bundled.jsonl.gz").is_file()
