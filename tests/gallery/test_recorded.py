"""The record of a sweep, against counts that pandas makes from the rows."""

import json

import pytest

from refusal_utils.gallery.recorded import OUTCOMES, script_json, sweep_record, write_record
from refusal_utils.judging import STYLES
from refusal_utils.prompts.categories import ALL_CATEGORIES

from .planted import DIRECTIONS, GAPS, HOSTILE, planted_sweep


def test_rates_and_shares_are_those_of_the_rows():
    swept = planted_sweep()
    record = sweep_record(swept)
    rows = swept.rows[swept.rows["outcome"] != "not judged"]
    refused = rows.assign(refused=rows["outcome"] == "refused")
    assert list(record["directions"]) == list(DIRECTIONS)
    for name, own in record["directions"].items():
        assert own["gaps"] == list(GAPS)
        for at, gaps in enumerate(GAPS):
            point = refused[(refused["direction"] == name) & (refused["gaps"] == gaps)]
            for rate, side in (("RR", point[point["harmful"]]), ("ORR", point[~point["harmful"]])):
                assert own[rate][at] == pytest.approx(side["refused"].mean(), abs=1e-4)
                assert own[f"{rate} low"][at] <= own[rate][at] <= own[f"{rate} high"][at]
            by_category = dict(zip(ALL_CATEGORIES, own["refused"][at], strict=True))
            assert by_category["benign"] == pytest.approx(point.loc[~point["harmful"], "refused"].mean(), abs=1e-4)
            assert by_category["advice"] is None  # no such prompt
            n_refused = int(point["refused"].sum())
            counts = dict(zip(STYLES, own["styles"][at], strict=True))
            assert own["refusals"][at] == n_refused == counts["illegality or harm"] == counts["apology"]
            assert counts["identity"] == 0
    n = dict(zip(ALL_CATEGORIES, record["n"], strict=True))
    assert (n["benign"], n["safety_core"], n["advice"]) == (10, 2, 0)


def test_responses_are_those_of_the_rows_and_only_benign_ones_unless_asked():
    swept = planted_sweep()
    for show_prompts in (False, True):
        record = sweep_record(swept, show_prompts=show_prompts, n_prompts=4)
        kinds = [ALL_CATEGORIES[kind] for kind, _ in record["prompts"]]
        harmful = swept.rows[swept.rows["harmful"]]
        assert (set(kinds) - {"benign"} == set()) is not show_prompts
        assert show_prompts or not set(harmful["text"]) & {text for _, text in record["prompts"]}
        assert kinds.count("benign") == 4
        rows = swept.rows.set_index(["direction", "gaps", "text"])
        for name, own in record["directions"].items():
            for at, gaps in enumerate(own["gaps"]):
                for number, (_, text) in enumerate(record["prompts"]):
                    row = rows.loc[(name, gaps, text)]
                    assert record["texts"][own["responses"][at][number]] == row["response"]
                    assert OUTCOMES[own["outcomes"][at][number]] == row["outcome"]


def test_shown_prompts_are_refused_and_answered_ones_alike():
    record = sweep_record(planted_sweep(), n_prompts=4)
    unsteered = record["directions"]["random 0"]
    outcomes = unsteered["outcomes"][unsteered["gaps"].index(0.0)]
    assert sorted(OUTCOMES[code] for code in outcomes) == ["answered", "answered", "refused", "refused"]


def test_a_script_cannot_be_left_and_nothing_is_invisible():
    text = script_json({HOSTILE: [HOSTILE]})
    assert json.loads(text) == {HOSTILE: [HOSTILE]}
    assert text.isascii()
    assert not set("<>&") & set(text)


def test_a_record_is_a_call_with_the_key(tmp_path):
    path = write_record(tmp_path, planted_sweep(), "by_behaviour/a'b")
    text = path.read_text()
    assert text.startswith('recorded("by_behaviour/a\'b", {')
    assert text.endswith("});\n")
    first = path.read_bytes()
    write_record(tmp_path, planted_sweep(), "by_behaviour/a'b")
    assert path.read_bytes() == first
