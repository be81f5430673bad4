import pandas as pd
import pytest

from refusal_utils.sweep_tables import pairs_by_kind, rates_by_length

TESTS = pd.DataFrame(
    [
        ("a", "b", 0.1, "equivalent"),
        ("a", "random 0", 0.4, "different"),
        ("b", "random 0", 0.2, "different"),
        ("random 0", "random 1", float("nan"), "no common range"),
    ],
    columns=["first", "second", "gap", "verdict"],
)


def test_pairs_by_kind_counts_every_pair_once_whatever_its_order():
    kinds = {"a": "ours", "b": "ours", "random 0": "random", "random 1": "random"}
    swapped = TESTS.rename(columns={"first": "second", "second": "first"})
    for tests in (TESTS, swapped):
        table = pairs_by_kind(tests, kinds)
        assert list(table.index) == ["ours / ours", "random / ours", "random / random"]
        assert table.loc["random / ours", "different"] == 2
        assert table.loc["random / ours", "median gap"] == pytest.approx(0.3)
        assert table.drop(columns="median gap").to_numpy().sum() == len(TESTS)
        assert pd.isna(table.loc["random / random", "median gap"])


def test_rates_by_length_count_the_verdicts_that_the_last_tokens_change():
    final = ["refused", "refused", "answered", "answered", "refused", "broken", "answered", "answered"]
    early = ["answered", "refused", "answered", "answered", "refused", "answered", "answered", "refused"]
    frame = pd.DataFrame({"gaps": [0.5] * 4 + [1.0] * 4, "harmful": [True, True, False, False] * 2})
    rows = {n: frame.assign(outcome=said, text="t", response="r") for n, said in ((10, early), (50, final))}
    table = rates_by_length(rows, "gaps")
    assert table.index.names == ["tokens", "gaps"]
    assert table["verdicts that change"].to_dict() == {(10, 0.5): 0.25, (10, 1.0): 0.5, (50, 0.5): 0, (50, 1.0): 0}
    assert table.loc[(10, 0.5), ["RR", "ORR", "degenerate"]].tolist() == [0.5, 0, 0]
    assert table.loc[(50, 1.0), ["RR", "ORR", "degenerate"]].tolist() == [0.5, 0, 0.25]
