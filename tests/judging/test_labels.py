import pandas as pd
import pytest

from refusal_utils.judging.labels import agreement, read_labels, worst_errors, write_label_sheet


@pytest.fixture
def rows():
    return pd.DataFrame({"text": ["a, b", "c", "d"], "response": ['say "no"', "line\nbreak", "z"]}, index=[10, 11, 12])


def test_labels_come_back_by_row(rows, tmp_path):
    path = write_label_sheet(rows, tmp_path / "sheet.csv")
    sheet = pd.read_csv(path, keep_default_na=False)
    assert sheet["response"].tolist() == rows["response"].tolist()
    sheet["refused"] = ["Yes", "", " partial "]
    sheet.sample(frac=1, random_state=1).to_csv(path, index=False)
    assert read_labels(path).to_dict() == {10: "yes", 12: "partial"}
    assert len(pd.read_csv(write_label_sheet(rows, tmp_path / "two.csv", n=2))) == 2


def test_sheets_that_are_wrong_or_in_the_way_are_named(rows, tmp_path):
    path = write_label_sheet(rows, tmp_path / "sheet.csv")
    with pytest.raises(ValueError, match="write_label_sheet: the file must be new"):
        write_label_sheet(rows, path)
    sheet = pd.read_csv(path, keep_default_na=False)
    sheet.assign(refused=["yes", "perhaps", "no"]).to_csv(path, index=False)
    with pytest.raises(ValueError, match="got 'perhaps' in line 3 of"):
        read_labels(path)
    sheet.drop(columns="row").to_csv(path, index=False)
    with pytest.raises(ValueError, match="read_labels: the sheet must have row and refused"):
        read_labels(path)


def test_a_sheet_is_read_as_spreadsheets_save_it(tmp_path):
    path = tmp_path / "sheet.csv"
    path.write_text('\ufeffrow;text;response;refused\r\n3;a;"one\ntwo";NO\r\n0;NA;b\u2028c;yes\r\n', newline="")
    assert read_labels(path).to_dict() == {3: "no", 0: "yes"}
    path.write_text('row,text,response,refused\n0,a,"one\ntwo",no\n0,b,c,yes\n')
    with pytest.raises(ValueError, match="got '0' in line 4 of"):
        read_labels(path)
    path.write_text("row,text,response,refused\n0,a,b\n")
    with pytest.raises(ValueError, match="3 cells under 4 columns"):
        read_labels(path)


def test_agreement_is_that_of_a_table_by_hand():
    """40 both refused, 5 called falsely, 10 missed, 45 neither."""
    judged = [True] * 45 + [False] * 55
    truth = [True] * 40 + [False] * 5 + [True] * 10 + [False] * 45
    found = agreement(judged, truth)
    chance = 0.45 * 0.5 + 0.55 * 0.5
    assert found["accuracy"] == pytest.approx(0.85)
    assert found["kappa"] == pytest.approx((0.85 - chance) / (1 - chance))
    assert found["missed"] == pytest.approx(10 / 50)
    assert found["false"] == pytest.approx(5 / 50)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        agreement([True], [True, False])


def test_a_rate_without_any_case_is_not_a_number():
    assert agreement([True, False], [False, False]).isna().to_dict() == {
        "n": False, "accuracy": False, "kappa": False, "missed": True, "false": False,
    }  # fmt: skip
    found = agreement([True, False, True], [True, True, True])
    assert (found["n"], found["missed"]) == (3, pytest.approx(1 / 3))
    assert pd.isna(found["false"])


def test_worst_errors_counts_phrases_and_sides():
    """Two answers called refusals by one phrase in two spellings, one refusal missed, and three right calls."""
    evidence = ["I must  point", "i must point", None, "I can't", None, "I won't"]
    judged = [True, True, False, True, False, True]
    truth = [False, False, True, True, False, True]
    found = worst_errors(evidence, judged, truth)
    assert found[["type", "side", "count"]].values.tolist() == [
        ["i must point", "false", 2],
        ["no phrase found", "missed", 1],
    ]
    assert found["share"].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert worst_errors(["I can't"], [True], [True]).empty
    with pytest.raises(ValueError, match="longer"):
        worst_errors(["a"], [True], [True, False])
