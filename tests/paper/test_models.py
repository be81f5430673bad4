import shutil
from pathlib import Path

import pandas as pd
import pytest

from refusal_utils.paper.claims import CLAIMS
from refusal_utils.paper.models import compare_models, cosine_maps, model_title, tradeoff_maps
from refusal_utils.paper.tables import published_cosines
from refusal_utils.prompts.categories import CATEGORY_IDS, category_by_id
from refusal_utils.workflow.command_line import main
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


def test_cosine_maps_have_the_published_map_and_one_per_model_with_gaps_left_empty(folders):
    figure = cosine_maps(folders)
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


def test_tradeoff_maps_draw_every_curve_in_its_models_panel_and_name_each_once(folders):
    figure = tradeoff_maps(folders)
    panels = pd.Series([trace.xaxis for trace in figure.data])
    assert panels.value_counts().to_dict() == {"x": 12, "x2": 10}  # eleven and nine curves, and the controls
    legend = [trace.name for trace in figure.data if trace.showlegend]
    assert legend == [*(category_by_id(name).title for name in CATEGORY_IDS), "control directions"]
    curves = pd.read_csv(BUNDLED / "07_tradeoff.csv")
    own = curves[curves["direction"] == "advice"]
    trace = next(trace for trace in figure.data if trace.name == "Unqualified advice")
    assert list(trace.y) == pytest.approx(list(own["RR"]))
    assert list(trace.x) == pytest.approx(list(2 * own["overall"] - own["RR"]), abs=1e-3)
    colours = {trace.marker.color for trace in figure.data if trace.name == "control directions"}
    assert colours == {"#888888"}


def test_models_without_tables_have_no_figure_and_no_row(folders):
    assert cosine_maps(folders[2:]) is None
    assert tradeoff_maps(folders[2:]) is None
    assert model_title(folders[2]) == "empty"
    assert claims_markdown(folders).count("\n") == 2 + 2


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
    assert [path.name for path in paths] == ["models_cosines.html", "models_tradeoff.html"]
    assert all(path.is_file() for path in paths)
    with pytest.raises(ValueError, match="^compare_models: the notebooks must have run on the model; got no folder"):
        compare_models(["nothing"], folders[0].parent)


def test_report_takes_several_models(folders, capsys, monkeypatch):
    monkeypatch.setattr("refusal_utils.plotting.saving.chrome", lambda: None)
    assert main(["report", "--models", "bundled", "x/qwen", "--out", str(folders[0].parent)]) == 0
    said = capsys.readouterr().out
    assert said.count(CLAIMS[1]) == 2
    assert "models_cosines.html" in said


def test_the_readmes_table_is_made_from_the_committed_claims():
    assert written() == table()
