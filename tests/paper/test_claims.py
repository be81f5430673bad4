"""Planted tables that must give each of the three verdicts for each claim, and the bundled tables by another route."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from refusal_utils.paper.claims import CLAIMS, Claims, check_claims, describe_setting
from refusal_utils.paper.measures import AGREES, DIFFERS, UNDECIDED, Measure
from refusal_utils.paper.report import write_report
from refusal_utils.prompts.categories import CATEGORIES, CATEGORY_IDS

FIGURES = Path(__file__).parents[2] / "figures"
PAIRS = list(combinations(CATEGORY_IDS, 2))


def write_intervals(folder: Path, low: float, high: float, p: float = 0.001, n_pairs: int = 55) -> None:
    rows = [(*pair, (low + high) / 2, low, high, p) for pair in PAIRS[:n_pairs]]
    columns = ["first", "second", "corrected", "low", "high", "p distinct"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "03_intervals.csv", index=False)


def write_map(folder: Path, clusters: tuple[float, float], published: tuple[float, float] = (0.5, 0.7), n=55) -> None:
    ends = {"published map": published, "two clusters": clusters}
    rows = {name: {"correlation": sum(own) / 2, "low": own[0], "high": own[1]} for name, own in ends.items()}
    notes = {
        "p": 0.01,
        "chance": 0.25,
        "n": n,
        "layer": 12,
        "pos": -1,
        "dtype": "bfloat16",
        "thinking": "none",
        "system_prompt": None,
    }
    notes["dequantized_from"] = "Q4_K_M"
    pd.DataFrame(rows).T.assign(**notes, decision_source="causal").to_csv(folder / "03_map.csv")


def write_knob(folder: Path, equivalent: int, different: int = 0, n_pairs: int = 55) -> None:
    verdicts = ["equivalent"] * equivalent + ["different"] * different
    frame = pd.DataFrame(PAIRS[:n_pairs], columns=["first", "second"])
    frame["verdict"] = verdicts + ["undecided"] * (n_pairs - len(verdicts))
    frame.assign(gap=0.05).to_csv(folder / "07_knob.csv")


def write_rates(folder: Path, eleven: dict[str, float], random: float = 0.5, width: float = 0.03, broken=0.0) -> None:
    """Overall rates at one gap; random directions also reach 1 at two gaps, where the eleven never were."""
    rows = []
    for name, rate in {**eleven, **{f"random {number}": random for number in range(5)}}.items():
        points = [(0.0, 0.5, 0.0), (1.0, rate, broken)] + ([(2.0, 1.0, 0.0)] if "random" in name else [])
        for gaps, overall, degenerate in points:
            ends = {f"{each}{end}": overall + sign * width for each in ("RR", "ORR") for end, sign in ENDS}
            rows.append({"direction": name, "gaps": gaps, "intervention": "steered", "degenerate": degenerate, **ends})
    frame = pd.DataFrame(rows).assign(judge="phrases", max_new_tokens=24, draw="planted")
    frame.to_csv(folder / "07_rates.csv", index=False)


ENDS = (("", 0), (" low", -1), (" high", 1))


def write_guess(folder: Path, text: float, outcome: float = 0.1, width: float = 0.02) -> None:
    rows = {
        ("dependence", "how: its styles, same strength"): {"cramer": 0.5, "null cramer": 0.1, "n": 900},
        ("dependence", "whether, same strength"): {"cramer": 0.2, "null cramer": 0.1, "n": 1000},
        ("guess", "text of a refusal, same strength"): guess(text, width, 900),
        ("guess", "refused or not, same strength"): guess(outcome, width / 4, 1000),
    }
    pd.DataFrame(rows).T.to_csv(folder / "08_guess.csv")


def guess(accuracy: float, width: float, n: int) -> dict[str, float]:
    return {"accuracy": accuracy, "low": accuracy - width, "high": accuracy + width, "chance": 1 / 11, "n": n}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Tables on which all four claims hold."""
    write_intervals(tmp_path, 0.4, 0.6)
    write_map(tmp_path, (0.4, 0.6))
    write_knob(tmp_path, 55)
    write_rates(tmp_path, dict.fromkeys(CATEGORY_IDS, 0.9))
    write_guess(tmp_path, 0.7)
    return tmp_path


def verdicts(folder: Path) -> list[str]:
    found = check_claims(folder, "org/planted")
    return [found.verdict(claim) for claim in CLAIMS]


def test_all_claims_hold_on_tables_planted_so(folder):
    assert verdicts(folder) == [AGREES] * 4
    table = check_claims(folder, "org/planted").table()
    assert list(table.index) == list(CLAIMS.values())
    assert table["number"].to_list() == pytest.approx([55, 0.5, 55, 0.7])
    assert (table["low"] <= table["number"]).all()
    assert (table["number"] <= table["high"]).all()
    assert table["n"].to_list() == [55, 55, 55, 900]


@pytest.mark.parametrize(
    ("claim", "write", "expected"),
    [
        (1, lambda at: write_intervals(at, 0.4, 0.97), UNDECIDED),
        (1, lambda at: write_intervals(at, 0.4, 0.6, p=0.2), UNDECIDED),
        (1, lambda at: write_intervals(at, 0.96, 0.99), DIFFERS),
        (2, lambda at: write_map(at, (0.1, 0.5)), UNDECIDED),
        (2, lambda at: write_map(at, (-0.2, 0.2)), DIFFERS),
        (2, lambda at: write_map(at, (0.4, 0.6), (0.0, 0.3)), UNDECIDED),
        (2, lambda at: write_map(at, (0.4, 0.6), (-0.4, 0.1)), DIFFERS),
        (3, lambda at: write_knob(at, 49), UNDECIDED),
        (3, lambda at: write_knob(at, 50, 5), AGREES),
        (3, lambda at: write_knob(at, 40, 6), DIFFERS),
        (3, lambda at: write_rates(at, rising(9, 0.62)), UNDECIDED),
        (3, lambda at: write_rates(at, rising(10, 0.3)), AGREES),
        (3, lambda at: write_rates(at, rising(9, 0.3)), DIFFERS),
        (3, lambda at: write_rates(at, rising(11, 0.9), random=0.9), DIFFERS),
        (3, lambda at: write_rates(at, rising(11, 0.9), random=0.6), UNDECIDED),
        (3, lambda at: write_rates(at, rising(11, 0.9), broken=0.5), UNDECIDED),
        (4, lambda at: write_guess(at, 0.19), UNDECIDED),
        (4, lambda at: write_guess(at, 0.1), DIFFERS),
        (4, lambda at: write_guess(at, 0.3, 0.17), DIFFERS),
        (4, lambda at: write_guess(at, 0.3, 0.112), UNDECIDED),
    ],
)
def test_each_claim_can_get_each_verdict_and_leaves_the_others_alone(folder, claim, write, expected):
    write(folder)
    found = verdicts(folder)
    assert found.pop(claim - 1) == expected
    assert found == [AGREES] * 3


def rising(n: int, others: float) -> dict[str, float]:
    """The overall refusal rate of `n` directions is 0.9 at one gap, that of the others `others`."""
    return {name: 0.9 if number < n else others for number, name in enumerate(CATEGORY_IDS)}


@pytest.mark.parametrize(
    ("file", "claims"),
    [
        ("03_intervals.csv", {1}),
        ("03_map.csv", {2}),
        ("07_knob.csv", {3}),
        ("07_rates.csv", {3, 4}),
        ("08_guess.csv", {4}),
    ],
)
@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_text("a,b\n1,2\n"), lambda path: path.write_text("")]
)
def test_a_table_that_is_missing_or_of_an_earlier_version_decides_nothing_and_is_named(folder, file, claims, damage):
    damage(folder / file)
    found = check_claims(folder, "org/planted")
    undecided = {claim for claim in CLAIMS if found.verdict(claim) == UNDECIDED}
    assert undecided == claims
    doubts = found.rows().loc[lambda rows: rows["claim"].isin(claims), "doubt"]
    assert doubts.str.contains(f"{file}|of 11").any()


def test_an_empty_folder_gives_four_undecided_claims(tmp_path):
    assert verdicts(tmp_path) == [UNDECIDED] * 4


def test_fewer_than_eleven_directions_leave_every_claim_open(folder):
    write_intervals(folder, 0.4, 0.6, n_pairs=45)
    write_map(folder, (0.4, 0.6), n=45)
    write_knob(folder, 45, n_pairs=45)
    write_rates(folder, dict.fromkeys(CATEGORY_IDS[:9], 0.9))
    found = check_claims(folder, "org/planted")
    assert [found.verdict(claim) for claim in CLAIMS] == [UNDECIDED] * 4
    rows = found.rows()
    said = rows["note"] + rows["doubt"]
    assert said[rows["unit"] != "directions"].str.contains("45 of 55 pairs|9 of 11 directions").iloc[:5].all()


def test_tables_of_another_draw_decide_nothing(folder):
    draw = pd.DataFrame(
        {"id": ["a", "b"], "category": ["advice", "benign"], "selection": "label", "prompts": "builtin"}
    )
    draw.to_csv(folder / "01_draw.csv", index=False)
    assert verdicts(folder)[2] == UNDECIDED
    assert "of another draw" in check_claims(folder, "org/planted").table()["why"].iloc[2]


@pytest.mark.parametrize(("above", "inside"), [(True, (AGREES, DIFFERS)), (False, (DIFFERS, AGREES))])
def test_the_rule_is_symmetric(above, inside):
    ranges = [(0.5, 0.7), (0.1, 0.4), (0.4, 0.6), (np.nan, 0.6)]
    found = [Measure(1, "m", "pairs", 0.5, *ends, bar=0.5, above=above).verdict for ends in ranges]
    assert found == [*inside, UNDECIDED, UNDECIDED]
    assert Measure(1, "m", "pairs", 0.5, 0.5, 0.7, 0.5, doubt="stale").verdict == UNDECIDED


def test_the_bundled_models_numbers_are_those_of_its_tables_by_another_route():
    """Counts and correlations recomputed with plain pandas and numpy from the committed tables."""
    rows = check_claims(FIGURES / "bundled", "bundled").rows().set_index("measure")
    pairs = pd.read_csv(FIGURES / "bundled" / "03_intervals.csv")
    distinct = ((pairs["high"] < 0.95) & (pairs["p distinct"] < 0.05)).sum()
    assert rows.loc["pairs of directions are distinct", "number"] == distinct
    cluster = {category.id: category.cluster for category in CATEGORIES}
    same = [cluster[first] == cluster[second] for first, second in zip(pairs["first"], pairs["second"], strict=True)]
    for name, other in (("the two clusters", same), ("published map", pairs["published"])):
        found = rows.loc[rows.index.str.contains(name), "number"].item()
        assert found == pytest.approx(np.corrcoef(pairs["raw"], other)[0, 1], abs=1e-3)
    knob = pd.read_csv(FIGURES / "bundled" / "07_knob.csv")
    assert rows.loc["pairs of trade-off curves are equivalent", "number"] == (knob["p_equivalent"] < 0.05).sum()
    reach = pd.read_csv(FIGURES / "bundled" / "07_reach.csv").set_index("direction")
    assert rows.loc["directions raise refusals", "number"] == (reach.loc[list(CATEGORY_IDS), "to low"] > 0.6).sum()
    assert set(rows["kind"]) == {"test organism"}


def test_committed_claims_are_those_of_the_committed_tables():
    for path in FIGURES.glob("**/claims.csv"):
        model = pd.read_csv(path)["model"].iloc[0]
        expected = check_claims(path.parent, model).rows()
        columns = ["claim", "measure", "number", "low", "high", "n", "verdict", "claim verdict"]
        pd.testing.assert_frame_equal(pd.read_csv(path)[columns], expected[columns], atol=1e-3, check_dtype=False)


def test_the_setting_is_read_from_tables_alone(folder):
    found = check_claims(folder, "org/planted")
    assert isinstance(found, Claims)
    words = describe_setting(found.setting)
    assert (
        words == "layer 12, position -1; place: causal; judge phrases; 24 tokens; bfloat16; 4-bit Q4_K_M, dequantized"
    )


def test_the_report_shows_the_claims_and_writes_them(folder):
    for file in ("03_intervals.csv", "07_rates.csv"):  # planted without the columns that the other table needs
        (folder / file).unlink()
    table, page, _ = write_report(str(folder), folder.parent)
    written = pd.read_csv(table.with_name("claims.csv"))
    assert set(written["claim"]) == set(CLAIMS)
    assert all(text in page.read_text() for text in CLAIMS.values())
