import numpy as np
import pandas as pd
import pytest

from refusal_utils.tradeoff.curves import as_sweep, knob_test
from refusal_utils.tradeoff.sweep import rate_table
from refusal_utils.tradeoff.sweep_tables import departures, equivalent_pairs, pairs_by_kind, rates_by_length

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
        assert table.loc["random / ours", "median largest difference"] == pytest.approx(0.3)
        assert table.drop(columns="median largest difference").to_numpy().sum() == len(TESTS)
        assert pd.isna(table.loc["random / random", "median largest difference"])


def test_equivalent_pairs_count_by_margin_among_those_that_could_be_compared():
    kinds = {"a": "ours", "b": "ours", "random 0": "random", "random 1": "random"}
    narrower = TESTS.assign(verdict=["undecided", "different", "different", "no common range"])
    table = equivalent_pairs({0.1: TESTS, 0.05: narrower}, kinds)
    assert table.columns.tolist() == ["pairs", "compared", "within 0.1", "within 0.05"]
    assert table.loc["ours / ours"].tolist() == [1, 1, 1, 0]
    assert table.loc["random / ours"].tolist() == [2, 2, 0, 0]
    assert table.loc["random / random"].tolist() == [1, 0, 0, 0]


def made_responses(seed, n=40):
    """Rows of a sweep in which three directions refuse at random, at four strengths and none; text breaks at the last."""
    generator = np.random.default_rng(seed)
    prompts = pd.DataFrame({"id": range(2 * n), "harmful": np.arange(2 * n) < n, "text": "t", "response": "r"})
    rows = []
    for name, strength in [("a", 0.0), *((name, level) for name in "abc" for level in (-1.0, 1.0, 2.0, 3.0))]:
        share = np.where(prompts["harmful"], *generator.uniform(0.1, 0.9, 2)) if strength else 0.5
        outcome = np.where(generator.random(2 * n) < share, "refused", "broken" if strength == 3 else "answered")
        if strength == 0:
            outcome = np.where(np.arange(2 * n) % 2, "refused", "answered")
        rows.append(prompts.assign(direction=name, coefficient=strength, outcome=outcome))
    return pd.concat(rows, ignore_index=True)


def test_departures_bound_how_far_apart_two_curves_can_lie():
    apart = []
    for seed in range(5):
        rows = made_responses(seed)
        table = rate_table(rows, ["direction", "coefficient"])
        found = departures(table, "coefficient")
        kept = table[(table["degenerate"] <= 0.1) & (table.index.get_level_values(1) != 0)]
        assert found.to_numpy() == pytest.approx((kept["RR"] - kept[["RR", "ORR"]].mean(axis=1)).to_numpy())
        assert 0 < len(found) < len(table) - 1  # broken text is out, and so is the unsteered model
        sweep = as_sweep(rows, ["a", "b", "c"], [0.0, -1.0, 1.0, 2.0, 3.0])
        largest = knob_test(sweep, min_range=0.0, n_draws=2)["gap"].max()
        room = max(found.max(), 0) - min(found.min(), 0)
        assert largest <= room + 1e-9
        apart.append(largest / room)
    assert max(apart) > 0.3  # before control: the curves do lie apart


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
