import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from refusal_utils.methods import METHODS
from refusal_utils.notebooks import NOTEBOOKS, read_cells
from refusal_utils.paper.claims import CLAIMS
from refusal_utils.paper.measures import COUNTED
from refusal_utils.paper.model_maps import PUBLISHED
from refusal_utils.paper.models import Models, compare_models, model_title, open_models
from refusal_utils.paper.tables import published_cosines
from refusal_utils.prompts.categories import CATEGORY_IDS
from refusal_utils.workflow.command_line import main
from refusal_utils.workflow.runner import run_notebook
from tests.readings import bold_numbers, is_printed, printed_numbers, readings
from tests.readme_claims import claims_markdown, table, written

BUNDLED = Path(__file__).parents[2] / "figures" / "bundled"
TABLES = ("03_cosine_matrix.csv", "07_rates.csv", "07_tradeoff.csv", "claims.csv")


@pytest.fixture
def folders(tmp_path) -> list[Path]:
    """The bundled model, a second one with nine directions and dequantized weights, and one without tables."""
    for name in ("bundled", "qwen", "empty"):
        (tmp_path / name).mkdir()
    for name in TABLES:
        shutil.copy(BUNDLED / name, tmp_path / "bundled")
    nine = pd.read_csv(BUNDLED / TABLES[0], index_col=0).iloc[:9, :9]
    nine.to_csv(tmp_path / "qwen" / TABLES[0])
    for name in TABLES[1:3]:
        frame = pd.read_csv(BUNDLED / name)
        frame[~frame["direction"].isin(CATEGORY_IDS[9:])].to_csv(tmp_path / "qwen" / name)
    claims = pd.read_csv(BUNDLED / "claims.csv").assign(kind="chat model", weights="4-bit, dequantized", layer=14)
    claims.to_csv(tmp_path / "qwen" / "claims.csv", index=False)
    return [tmp_path / name for name in ("bundled", "qwen", "empty")]


def opened(folders: list[Path]) -> Models:
    return open_models([folder.name for folder in folders], folders[0].parent)


def test_maps_have_the_published_one_and_one_per_model_with_gaps_left_empty(folders):
    figure = opened(folders).maps.figure()
    assert len(figure.data) == 3
    assert figure.data[0].z == pytest.approx(published_cosines().to_numpy(), abs=1e-3)
    shown = pd.DataFrame(figure.data[2].z)
    assert shown.isna().to_numpy().sum() == 121 - 81
    titles = [note.text for note in figure.layout.annotations]
    assert titles[1:] == [
        "bundled, layer 6, pos -2<br>(test organism)",
        "qwen, layer 14, pos -2<br>(4-bit, dequantized)",
    ]
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"}


def test_mean_curves_and_their_table_are_those_of_the_committed_curves(folders):
    """Against pandas on the raw table: levels that few directions reach are left out of a model's mean."""
    found = opened(folders[:2]).curves
    raw = pd.read_csv(BUNDLED / "07_tradeoff.csv").query("direction in @CATEGORY_IDS")
    by_level = raw.groupby("overall")["RR"].agg(["mean", "size"])
    kept = by_level[by_level["size"] >= 6]
    means = found.means().query("model == 'bundled'")
    assert list(means["overall"]) == pytest.approx(list(kept.index))
    assert list(means["RR"]) == pytest.approx(list(kept["mean"]))
    assert list(means["RR"] + means["ORR"]) == pytest.approx(list(2 * kept.index))
    assert len(by_level) > len(kept)
    assert dict(found.table()["directions"]) == {"bundled": 11, "qwen": 9}


def test_the_tradeoff_figure_has_a_line_per_direction_and_a_named_mean_per_model(folders):
    traces = opened(folders[:2]).curves.figure().data
    thin = [trace for trace in traces if trace.showlegend is False and trace.mode == "lines"]
    thick = [trace for trace in traces if trace.name in ("bundled", "qwen") and trace.showlegend]
    assert [trace.name for trace in thin] == ["bundled"] * 11 + ["qwen"] * 9
    assert [trace.name for trace in thick] == ["bundled", "qwen"]
    assert {trace.line.color for trace in thin if trace.name == "qwen"} == {thick[1].line.color}
    points = [trace for trace in traces if trace.name == "control directions"]
    assert {trace.visible for trace in points} == {"legendonly"}
    steered = pd.read_csv(BUNDLED / "07_rates.csv").query("intervention == 'steered'")
    controls = steered[steered["direction"].str.startswith(("random", "covariance"))]
    assert len(points[0].x) == len(controls)


def test_likeness_is_the_correlation_over_common_pairs_and_finds_no_likeness_in_shuffled_labels(folders):
    """Before control: the same map, and the same map with its categories shuffled."""
    shuffled = pd.read_csv(folders[0] / TABLES[0], index_col=0)
    order = list(np.random.default_rng(3).permutation(shuffled.index))
    shuffled.loc[order, order].set_axis(shuffled.index, axis=0).set_axis(shuffled.columns, axis=1).to_csv(
        folders[2] / TABLES[0]
    )
    found = opened(folders).maps.likeness(n_draws=500)
    table = found.table()
    assert table.loc[("bundled", "qwen"), ["pairs", "correlation"]].tolist() == pytest.approx([36, 1.0])
    assert table.loc[("bundled", "qwen"), "p"] < 0.01
    assert table.loc[("bundled", "empty"), "p"] > 0.05
    ours = pd.read_csv(folders[0] / TABLES[0], index_col=0).to_numpy()
    upper = np.triu_indices(11, 1)
    theirs = published_cosines().to_numpy()
    expected = np.corrcoef(ours[upper], theirs[upper])[0, 1]
    assert table.loc[(PUBLISHED, "bundled"), "correlation"] == pytest.approx(expected)
    assert (table["p adjusted"] >= table["p"]).all()
    square = pd.DataFrame(found.figure().data[0].z)
    assert np.allclose(square, square.T)


def test_claims_have_a_row_per_model_with_verdict_number_range_and_n(folders):
    found = opened(folders).claims
    table = found.table()
    assert list(table.index) == ["bundled", "qwen", "empty"]
    assert table.shape[1] == len(CLAIMS)
    assert table.loc["empty"].str.fullmatch("undecided: no number").all()
    committed = pd.read_csv(BUNDLED / "claims.csv")
    first = committed[committed["claim"] == 2].iloc[0]
    shown = f"({first['low']:.2f} to {first['high']:.2f}), n = 55 pairs compared"
    assert shown in open_models([BUNDLED]).claims.table().iloc[0, 1]
    drawn = open_models([BUNDLED]).claims.figure().data
    numbers = [x for trace in drawn if trace.name != "bar" for x in trace.x]
    scale = np.where(committed["unit"].isin(COUNTED), committed["n"], 1)
    assert sorted(numbers) == pytest.approx(sorted(committed["number"] / scale), abs=1e-3)


def test_methods_have_a_row_each_and_the_gains_of_the_models_that_measured_them(folders):
    shutil.copy(BUNDLED / "09_methods_map.csv", folders[0])
    shutil.copy(BUNDLED / "09_gains.csv", folders[0])
    shutil.copy(BUNDLED / "09_methods_map.csv", folders[1])
    found = opened(folders).methods
    gains = pd.read_csv(BUNDLED / "09_gains.csv").query("intervention == 'added' and name == 'lda'")
    most = gains.loc[gains["budget"].idxmax()]
    shown = found.table().loc["lda"]
    assert shown["bundled", "gain"] == f"{most['more']:+.2f} ({most['low']:+.2f} to {most['high']:+.2f})"
    assert shown["qwen", "gain"] == ""
    panels = {note.text for note in found.figure().layout.annotations}
    assert panels == {"cosine with the difference in means", "overall refusal added beyond it, 0.2 nats"}
    written = {name for trace in found.figure().data for name in trace.y}
    assert written == {method.title for name, method in METHODS.items() if name in {*found.rows["method"]}} - {
        "Difference in means"
    }


def test_results_without_tables_are_left_out_and_runs_of_one_name_are_told_apart(folders, tmp_path):
    empty = opened(folders[2:])
    assert (empty.maps, empty.curves, empty.methods) == (None, None, None)
    assert list(empty.results()) == ["models_claims"]
    assert model_title(folders[2]) == "empty"
    assert claims_markdown(folders).count("\n") == 2 + 2
    other = tmp_path / "again" / "qwen"
    shutil.copytree(folders[1], other)
    rows = pd.read_csv(other / "claims.csv").assign(selection="behaviour")
    rows.to_csv(other / "claims.csv", index=False)
    assert list(open_models([folders[1], other]).folders) == ["qwen, by label", "qwen, by behaviour"]
    deeper = other.parent / "quick" / "qwen"
    shutil.copytree(folders[1], deeper)
    assert list(open_models([other, deeper, folders[1]]).folders)[1] == "qwen, by label (quick)"
    shutil.copytree(folders[1], other.parent / "small" / "qwen")
    same = [deeper, other.parent / "small" / "qwen"]
    assert list(open_models(same).folders) == ["qwen, by label (quick)", "qwen, by label (small)"]
    (deeper / "claims.csv").write_text((other / "claims.csv").read_text())
    assert list(open_models([other, deeper]).folders) == ["qwen, by behaviour", "qwen, by behaviour (quick)"]
    with pytest.raises(ValueError, match="^open_models: there must be a folder of figures; got none"):
        open_models((), tmp_path / "nothing")


def test_the_markdown_table_has_every_claim_and_the_numbers_of_the_tables(folders):
    lines = claims_markdown(folders).splitlines()
    assert all(text in lines[0] for text in CLAIMS.values())
    assert {line.count(" | ") for line in lines} == {len(CLAIMS)}
    assert lines[2].startswith("| **bundled**: trained test organism; layer 6, position -2;")
    assert "4-bit, dequantized" in lines[3]
    first = pd.read_csv(BUNDLED / "claims.csv").iloc[0]
    assert f"{first['number']:.0f} of 55 ({first['low']:.0f} to {first['high']:.0f}) pairs" in lines[2]


def test_compare_models_writes_the_figures_next_to_the_models(folders, monkeypatch):
    monkeypatch.setattr("refusal_utils.plotting.saving.chrome", lambda: None)
    paths = compare_models(["bundled", "org/qwen"], folders[0].parent)
    drawn = [
        f"models_{name}.{kind}" for name in ("claims", "cosines", "likeness", "tradeoff") for kind in ("html", "csv")
    ]
    assert [path.name for path in paths] == drawn
    assert all(path.is_file() for path in paths)
    with pytest.raises(ValueError, match="^open_models: the notebooks must have run on the model; got no folder"):
        compare_models(["nothing"], folders[0].parent)


def test_report_takes_several_models(folders, capsys, monkeypatch):
    monkeypatch.setattr("refusal_utils.plotting.saving.chrome", lambda: None)
    assert main(["report", "--models", "bundled", "x/qwen", "--out", str(folders[0].parent)]) == 0
    said = capsys.readouterr().out
    assert said.count(CLAIMS[1]) == 2
    assert "models_cosines.html" in said
    folder = str(folders[1])  # a folder of figures instead of a name
    assert main(["report", "--models", folder, "--out", str(folders[0].parent)]) == 0
    assert capsys.readouterr().out.count(CLAIMS[1]) == 1


@pytest.mark.slow
def test_the_notebook_runs_on_the_committed_tables_and_prints_what_its_readings_state(tmp_path):
    run_notebook(NOTEBOOKS / "many_models.ipynb", tmp_path, {"FIGURES_DIR": str(BUNDLED.parent)})
    cells = read_cells(tmp_path / "many_models.ipynb")
    assert "error" not in [output["output_type"] for cell in cells for output in cell.get("outputs", ())]
    found = [(text, printed_numbers(section)) for text, section in readings(cells)]
    assert len(found) == 4
    assert not [number for text, shown in found for number in bold_numbers(text) if not is_printed(number, shown)]


def test_the_readmes_table_is_made_from_the_committed_claims():
    assert written() == table()
