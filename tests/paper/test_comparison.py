"""The tests write our files themselves, with the columns that notebooks 01, 03, 04 and 07 write."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from refusal_utils.directions import DirectionSet, Provenance
from refusal_utils.model.artifacts import model_notes
from refusal_utils.model.names import full_name
from refusal_utils.paper.comparison import Comparison, compare, difference
from refusal_utils.paper.latent_matches import RELEASED
from refusal_utils.paper.matches import NEEDED, ORACLES, RATES, STABILITY
from refusal_utils.paper.report import comparison_page, describe, write_report
from refusal_utils.paper.setting import Setting, read_setting
from refusal_utils.paper.tables import TABLE7_SOURCE, published_cosines, published_gaps, published_table
from refusal_utils.prompts.categories import CATEGORY_IDS, category_by_id
from refusal_utils.stats import wilson
from refusal_utils.workflow.command_line import main

GEMMA, LLAMA = "google/gemma-2-9b-it", "meta-llama/Llama-3.1-8B-Instruct"
N_PUBLISHED = {"1": 55, "2": 44 * 3, "8": 13, "10": 11, "11": 55 * 3, "12": 44 * 3}
N_PUBLISHED |= {"3": 22 * 3, "4": 11, "5": 6, "14": 33 * 3, RELEASED: 3 * (55 + 11)}
N_PUBLISHED |= {"2406.11717 Table 5": 13 * 5, "2506.00085 Table 2": 15 * 2}  # of the searches for a place


def save_direction(folder, chat, layer, pos, draw=None):
    place = Provenance(layer, pos, draw=draw, model=model_notes(chat))
    vectors = torch.eye(chat.d_model)[:1]
    DirectionSet(("a",), vectors, torch.ones(1), place).save(folder / "03_directions.safetensors")


@pytest.fixture
def write(tmp_path, chat):
    """Writes everything that the report reads, as a run on a model with the paper's own numbers would."""

    def everything(
        model: str,
        layer: int = 20,
        pos: int = -2,
        prompts: str = "paper",
        shift: float = 0.0,
        *,
        selection: str = "behaviour",
        over_refusal: str = "unsafe",
        system_prompt: str | None = None,
        n: int = 32,
    ):
        folder = tmp_path / model.split("/")[-1]
        folder.mkdir(exist_ok=True)
        asked = dataclasses.replace(chat, name=model, system_prompt=system_prompt)
        save_direction(folder, asked, layer, pos)
        draw = pd.DataFrame({"category": ["advice"] * n + ["over_refusal"] * n + ["benign"] * n})
        draw["over_refusal"] = draw["category"].map({"over_refusal": over_refusal})
        draw.assign(prompts=prompts, selection=selection).to_csv(folder / "01_draw.csv", index=False)
        table = published_cosines()
        pairs = [(second, first) for i, first in enumerate(CATEGORY_IDS) for second in CATEGORY_IDS[i + 1 :]]
        cosines = pd.DataFrame(pairs, columns=["first", "second"])
        cosines["raw"] = [table.loc[second, first] + shift for first, second in pairs]
        cosines["corrected"] = cosines["raw"] - 0.2
        cosines = cosines.assign(low=cosines["corrected"] - 0.05, high=cosines["corrected"] + 0.05)
        cosines.to_csv(folder / "03_intervals.csv", index=False)
        within = pd.DataFrame(
            {"category": list(CATEGORY_IDS), "split half mean": 0.98 + shift, "split half std": 0.01, "n": n}
        )
        within.to_csv(folder / STABILITY, index=False)
        oracles = [("HR-BC", "HR-BC", 0.92 + shift, 0.02), ("BR-BC", "HR-BC", 0.10 + shift, 0.02)]
        notes = {"judge": "wildguard", "draw": read_setting(folder, model).draw}
        pd.DataFrame(oracles, columns=NEEDED[ORACLES][:4]).assign(n=n, **notes).to_csv(folder / ORACLES, index=False)
        number = 12 if "gemma" in model else 11
        rates(published_table(number), shift).assign(**notes).to_csv(folder / RATES, index=False)
        return folder

    return everything


def rates(table: pd.DataFrame, shift: float = 0.0) -> pd.DataFrame:
    rows = []
    for row in table.itertuples():
        found = {
            "direction": row.category,
            "intervention": "steered",
            "coefficient": row.alpha,
            "gaps": row.alpha / 100,
        }
        for rate, value, n in (
            ("RR", row.refusal_rate, 100),
            ("ORR", row.over_refusal_rate, 100),
            ("accuracy", row.accuracy, 200),
        ):
            value = float(np.clip(value + shift, 0, 1))
            found |= dict(
                zip((rate, f"{rate} low", f"{rate} high"), (value, *wilson(round(value * n), n)), strict=True)
            )
        rows.append(found)
    return pd.DataFrame(rows)


def verdicts(frame: pd.DataFrame, table: str) -> dict[str, int]:
    return frame[frame["table"] == table]["verdict"].value_counts().to_dict()


def test_every_published_number_has_one_row_whatever_is_missing(tmp_path):
    frame = compare(tmp_path, "bundled").rows
    assert frame["table"].value_counts().to_dict() == N_PUBLISHED
    assert set(frame["verdict"]) == {"missing"}
    assert frame["theirs"].notna().all()
    assert frame["ours"].isna().all()
    assert frame.groupby("table")["note"].unique().map(list).to_dict()["12"] == ["not in 07_rates.csv of notebook 07"]


def test_the_papers_own_numbers_agree_with_the_paper(write):
    frame = compare(write(GEMMA), GEMMA).rows
    assert frame["table"].value_counts().to_dict() == N_PUBLISHED
    assert verdicts(frame, "1") == {"agrees": 55}
    assert verdicts(frame, "8") == {"agrees": 11, "missing": 2}  # two pools of the paper are no category here
    assert verdicts(frame, "10") == {"agrees": 2, "missing": 9}
    assert verdicts(frame, "12") == {"agrees": 132}
    table2 = frame[(frame["table"] == "2") & frame["condition"].str.startswith("gemma-2-9b-it, steered")]
    assert set(table2["verdict"]) == {"agrees"}
    ablated = frame[frame["condition"] == "gemma-2-9b-it, ablated"]
    assert set(ablated["verdict"]) == {"missing"}
    assert not set(frame[frame["table"] == "11"]["verdict"]) & {"agrees", "differs"}


def test_shifted_numbers_differ_and_the_difference_is_the_shift(write):
    frame = compare(write(GEMMA, shift=-0.4), GEMMA).rows
    cosines = frame[frame["table"] == "1"]
    assert set(cosines["verdict"]) == {"differs"}
    np.testing.assert_allclose(cosines["difference"], -0.4, atol=1e-9)
    np.testing.assert_allclose(cosines["difference high"] - cosines["difference"], 0.05, atol=1e-9)
    assert verdicts(frame, "8")["differs"] == 11
    assert verdicts(frame, "10")["differs"] == 2
    assert verdicts(frame, "12")["differs"] > 100


def test_every_number_stands_beside_its_own(write):
    """Ours are the paper's plus a twentieth in Table 12: an exchange of rows, categories or rates would show."""
    frame = compare(write(GEMMA, shift=-0.05), GEMMA).rows
    own = frame[(frame["table"] == "12") & (frame["theirs"] >= 0.05)]
    np.testing.assert_allclose(own["difference"], -0.05, atol=1e-9)
    row = own[(own["about"] == category_by_id("incomplete").title) & own["condition"].str.endswith("alpha 60")]
    assert row.set_index("quantity")["theirs"].to_dict() == {"RR": 0.94, "ORR": 0.47, "accuracy": 0.735}


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({"layer": 21}, "layer 21, theirs 20"),
        ({"pos": -1}, "position -1, theirs -2"),
        ({"prompts": "builtin"}, "prompts builtin, theirs paper"),
        ({"selection": "label"}, "selected by label, theirs behaviour or published"),
        ({"selection": "behaviour at random"}, "selected by behaviour at random, theirs behaviour or published"),
        ({"over_refusal": "safe_benign"}, "over-refusal read as safe_benign, theirs unsafe"),
        ({"system_prompt": "Be kind."}, "a system prompt, theirs none"),
    ],
)
def test_another_setting_is_not_comparable(write, options, note):
    frame = compare(write(GEMMA, **options), GEMMA).rows
    assert verdicts(frame, "1") == {"not comparable": 55}
    assert set(frame[frame["table"] == "1"]["note"]) == {note}
    assert not set(frame["verdict"]) & {"agrees", "differs"}


def test_another_number_of_prompts_sets_cosines_apart_and_no_rates(write):
    folder = write(GEMMA, n=16)
    frame = compare(folder, GEMMA).rows
    for table in ("1", "8", "10"):
        own = frame[(frame["table"] == table) & frame["ours"].notna()]
        assert set(own["verdict"]) == {"not comparable"}
        assert set(own["note"]) == {"16 prompts a side, theirs 32"}
    assert verdicts(frame, "12") == {"agrees": 132}


def test_rates_by_another_judge_say_so_and_keep_their_verdict(write):
    folder = write(GEMMA)
    pd.read_csv(folder / RATES).assign(judge="phrases").to_csv(folder / RATES, index=False)
    own = compare(folder, GEMMA).rows.query("table == '12'")
    assert set(own["note"]) == {"judged by phrases, theirs by WildGuard"}
    assert set(own["verdict"]) == {"agrees"}


@pytest.mark.parametrize(
    ("stale", "tables"), [("03_directions", {"1", "8", "10", "12"}), (ORACLES, {"10"}), (RATES, {"12"})]
)
def test_numbers_of_an_earlier_draw_are_not_comparable(write, chat, stale, tables):
    folder = write(GEMMA)
    digest = read_setting(folder, GEMMA).draw
    for draw in (digest, "an earlier one"):  # before control: the same draw
        if stale == "03_directions":
            save_direction(folder, dataclasses.replace(chat, name=GEMMA), 20, -2, draw)
        else:
            pd.read_csv(folder / stale).assign(draw=draw).to_csv(folder / stale, index=False)
        frame = compare(folder, GEMMA).rows
        found = frame[frame["note"].str.contains("of another draw than 01_draw.csv")]
        assert set(found["table"]) - {"2"} == (set() if draw == digest else tables)
        assert set(found["verdict"]) <= {"not comparable"}


def test_the_papers_own_rows_are_gemmas_and_not_llamas(write):
    assert verdicts(compare(write(GEMMA, selection="published"), GEMMA).rows, "1") == {"agrees": 55}
    frame = compare(write(LLAMA, layer=15, selection="published"), LLAMA).rows
    assert set(frame[frame["table"] == "11"]["note"]) == {"selected by published, theirs behaviour"}


@pytest.mark.parametrize(
    ("name", "same"),
    [("/models/Gemma-2-9B-it/", True), ("x/abliterated-gemma-2-9b-it", False), ("gemma-2-9b-it/step-7", False)],
)
def test_a_model_is_the_papers_only_by_the_whole_last_part_of_its_name(write, name, same):
    folder = write(GEMMA)
    (folder / "model.json").write_text(json.dumps({"model": full_name(name)}))
    frame = compare(folder, name).rows
    assert verdicts(frame, "1") == ({"agrees": 55} if same else {"not comparable": 55})


def test_llama_under_its_former_name_is_llama(write):
    folder, former = write(LLAMA, layer=15), "meta-llama/Meta-Llama-3.1-8B-Instruct"
    (folder / "model.json").write_text(json.dumps({"model": former}))
    frame = compare(folder, former).rows
    assert verdicts(frame, "11") == {"agrees": 165}


def test_cosines_stand_plain_beside_plain_with_the_interval_of_the_corrected(write):
    row = compare(write(GEMMA, shift=-0.03), GEMMA).rows.query("table == '1'").iloc[0]
    # Before control: the corrected one, 0.2 lower, would lie outside the interval.
    assert row["ours"] - row["theirs"] == pytest.approx(-0.03)
    assert (row["low"] - row["ours"], row["high"] - row["ours"]) == pytest.approx((-0.05, 0.05))


def test_llama_is_compared_with_llama_at_both_of_its_layers(write):
    for layer in (15, 16):
        frame = compare(write(LLAMA, layer=layer), LLAMA).rows
        assert verdicts(frame, "11") == {"agrees": 165}
        assert verdicts(frame, "1") == {"not comparable": 55}


def test_the_bundled_model_stands_beside_gemma_at_the_nearest_strength_and_claims_nothing(write):
    folder = write("bundled")
    own = pd.DataFrame({"direction": "advice", "gaps": [0.0, 0.7, 1.0, 1.5], "RR": [0.5, 0.7, 0.9, 1.0]})
    own = own.assign(
        intervention="steered", coefficient=np.nan, judge="phrases", draw=read_setting(folder, "bundled").draw
    )
    for name in NEEDED[RATES][6:]:
        own[name] = own["RR"]
    own.to_csv(folder / RATES, index=False)
    frame = compare(folder, "bundled").rows
    assert not set(frame["verdict"]) & {"agrees", "differs"}
    gaps = 100 / published_gaps()["advice"]
    row = frame[
        (frame["table"] == "12") & (frame["about"] == category_by_id("advice").title) & (frame["quantity"] == "RR")
    ]
    row = row.set_index("condition").loc["gemma-2-9b-it, steered, alpha 100"]
    assert (row["ours"], row["theirs"]) == (0.9, 1.0)
    assert f"; ours at 1.00 gaps, theirs at {gaps:.2f}; judged by phrases" in row["note"]
    zero = frame[(frame["table"] == "11") & frame["condition"].str.endswith("alpha 0") & (frame["quantity"] == "RR")]
    assert zero["ours"].dropna().to_list() == [0.5]


def test_setting_is_read_from_what_the_notebooks_noted(write, tmp_path):
    found = read_setting(write(GEMMA, 20, -2, selection="label", over_refusal="safe_benign", n=7), GEMMA)
    expected = Setting(GEMMA, (20,), (-2,), "paper", ("label",), ("safe_benign",), 7)
    assert len(found.draw) == 13
    assert dataclasses.replace(found, model_notes={}, draw="") == expected
    assert read_setting(tmp_path, "bundled") == Setting("bundled", (), (), "builtin")


def test_description_says_how_prompts_were_chosen_and_the_model_was_run(write):
    said = describe(read_setting(write(GEMMA, system_prompt="Be kind."), GEMMA))
    assert "32 prompts a side, selected by: behaviour; over-refusal read as: unsafe; place: decision_state.json" in said
    assert said.endswith("in float32; no thinking switch; system prompt: 'Be kind.'.")
    setting = read_setting(write(GEMMA), GEMMA)
    notes = {**setting.model_notes, "dequantized_from": "Q4_K_M"}
    assert "; dequantized from Q4_K_M; " in describe(dataclasses.replace(setting, model_notes=notes))
    assert "An unknown number of prompts a side, selected by: unknown" in describe(Setting("x", (), (), "paper"))


def test_difference_adds_the_intervals_in_squares():
    assert difference((0.5, 0.2, 0.6), (0.1, 0.0, 0.5)) == pytest.approx((0.4, 0.4 - 0.5, 0.4 + np.hypot(0.1, 0.1)))


def test_a_file_without_its_columns_is_refused(write):
    folder = write(GEMMA)
    pd.read_csv(folder / RATES).drop(columns="ORR low").to_csv(folder / RATES, index=False)
    with pytest.raises(
        ValueError, match="compare: 07_rates.csv must have columns.*got none called ORR low.*notebook 07"
    ):
        compare(folder, GEMMA)


def test_report_writes_a_table_and_a_page_that_opens_offline(write, capsys):
    folder = write(GEMMA)
    assert main(["report", "--model", GEMMA, "--out", str(folder)]) == 0
    assert "agrees" in capsys.readouterr().out
    pd.testing.assert_frame_equal(
        pd.read_csv(folder / "comparison.csv", dtype={"table": str}).drop(columns=["condition", "note"]),
        compare(folder, GEMMA).rows.round(4).drop(columns=["condition", "note"]),
    )
    page = (folder / "comparison.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "resid_pre of layer 20, position -2; prompts: paper." in page
    assert "http" not in page


def test_the_page_says_what_the_bundled_model_is_and_escapes_text(write):
    found = compare(write("bundled", layer=5), "bundled")
    assert "they say nothing about Gemma or Llama" in comparison_page(found)
    strange = Comparison(found.rows.assign(note="<script>"), Setting("<b>x", (), (), "<i>"))
    page = comparison_page(strange)
    assert not [tag for tag in ("<script>", "<b>x", "<i>") if tag in page]


def test_a_report_on_another_model_of_the_same_last_name_is_refused_and_overwrites_nothing(write, capsys):
    """The folder has no record, as before there were records: its directions' file says whose it is."""
    folder = write("meta/chatty")
    assert main(["report", "--model", "google/chatty", "--out", str(folder.parent)]) == 1
    assert "no folder" in capsys.readouterr().err
    with pytest.raises(ValueError, match="^read_setting: .* figures of meta/chatty for google/chatty"):
        compare(folder, "google/chatty")
    assert not (folder / "comparison.csv").exists()
    assert main(["report", "--model", "meta/chatty", "--out", str(folder.parent)]) == 0


def test_a_report_needs_a_run_of_the_notebooks(tmp_path):
    with pytest.raises(ValueError, match="^write_report: the notebooks must have run on the model; got no folder"):
        write_report("nobody/nothing", tmp_path)


def test_counts_add_up_to_all_published_numbers(write):
    counts = compare(write(GEMMA), GEMMA).table()
    assert counts.sum(axis=1).to_dict() == N_PUBLISHED
    assert set(counts.index) == set(N_PUBLISHED)
    numbers = [int(table) for table in counts.index if table.isdigit()]
    assert numbers == sorted(numbers)
    assert list(counts.index[len(numbers) :]) == [RELEASED, "2406.11717 Table 5", "2506.00085 Table 2"]


def test_places_that_a_search_chose_are_set_beside_those_of_other_papers_and_not_comparable(write):
    folder = write(GEMMA)
    (folder / "09_selections.csv").write_text("method,layer,depth,pos,bypass\ncosmic,24,0.6,-2,\n")
    frame = compare(folder, GEMMA).rows
    row = frame[(frame["about"] == "cosmic, gemma-2-9b-it") & (frame["quantity"] == "depth")].iloc[0]
    assert (row["ours"], row["verdict"]) == (0.6, "not comparable")
    assert row["theirs"] == pytest.approx(23 / 42)
    assert "theirs those of COSMIC" in row["note"]
    other = frame[frame["about"] == "arditi_selection, gemma-2b-it"]
    assert other["ours"].isna().all()
    assert set(other["verdict"]) <= {"missing", "not comparable"}


def test_every_category_has_its_row_of_table_8(write):
    frame = compare(write(GEMMA), GEMMA).rows
    own = frame[(frame["table"] == "8") & frame["ours"].notna()]
    assert set(own["about"]) == {category_by_id(category).title for category in TABLE7_SOURCE}
    assert own.set_index("about").loc["Crime assistance", "theirs"] == 0.99
