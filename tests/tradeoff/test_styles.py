"""Planted wordings: directions that decide how, whether, both or nothing."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2
from scipy.stats.contingency import association
from sklearn.metrics import mutual_info_score

from refusal_utils.judging import STYLES
from refusal_utils.model.artifacts import save_rows
from refusal_utils.model.names import cache_key
from refusal_utils.notebooks import find_notebooks, read_cells
from refusal_utils.plotting import saving
from refusal_utils.prompts.categories import CATEGORY_IDS
from refusal_utils.stats import wilson
from refusal_utils.tradeoff.styles import Guesses, Wording
from refusal_utils.tradeoff.sweep import Sweep

WORDINGS = {
    "first": ("I cannot, I am a machine.", ("identity",), "CAPABILITY"),
    "second": ("That is against the law.", ("illegality or harm", "apology"), "SAFETY"),
    "third": ("What do you mean by that?", ("missing context",), "UNDERSPEC"),
}


def rows(own_wording=True, n=60, refused=0.8, seed=0):
    """Every prompt under every direction; refused at random, worded by the direction or at random."""
    generator = np.random.default_rng(seed)
    table = []
    for prompt in range(n):
        for direction in WORDINGS:
            text, styles, kind = WORDINGS[direction if own_wording else generator.choice(list(WORDINGS))]
            answered = generator.random() > refused
            table.append(
                {
                    "id": f"p{prompt}",
                    "direction": direction,
                    "coefficient": 1.0,
                    "outcome": "answered" if answered else "refused",
                    "response": "Take a kettle." if answered else text,
                    "styles": () if answered else styles,
                    "release_type": "NONREFUSAL" if answered else kind,
                }
            )
    return pd.DataFrame(table)


def how(frame):
    return Wording(frame).of_refusals().dependence("release_type", n_draws=200)


def whether(frame):
    return Wording(frame).dependence("outcome", n_draws=200)


def test_how_not_whether_is_two_numbers():
    planted = rows()
    assert how(planted)["bits"] == pytest.approx(np.log2(3), abs=0.02)  # three wordings, told without error
    assert how(planted)["cramer"] == pytest.approx(1.0)
    assert how(planted)["p"] < 0.01
    assert whether(planted)["bits"] < 0.05
    assert whether(planted)["p"] > 0.05


def test_chance_alone_gives_bits_and_the_null_says_how_many():
    found = [how(rows(own_wording=False, n=20, seed=seed)) for seed in range(30)]
    assert np.mean([each["bits"] for each in found]) > 0.02  # the plain number is biased
    assert np.mean([each["bits"] - each["null bits"] for each in found]) == pytest.approx(0, abs=0.01)
    assert np.mean([each["p"] < 0.05 for each in found]) <= 0.15


def test_the_null_of_cramers_v_is_that_of_chi_square():
    """A yes or no by chance, 100 prompts under 3 directions: n V^2 is chi-square with 2 degrees of freedom."""
    prompts = np.repeat([f"p{number}" for number in range(100)], 3)
    found = []
    for seed in range(20):
        values = np.random.default_rng(seed).choice(["yes", "no"], size=300)
        frame = pd.DataFrame({"direction": list(WORDINGS) * 100, "value": values, "id": prompts})
        found.append(Wording(frame).dependence("value", n_draws=300, seed=seed))
    high = np.mean([each["null cramer high"] for each in found])
    assert high == pytest.approx(np.sqrt(chi2.ppf(0.95, 2) / 300), rel=0.07)
    assert np.mean([each["cramer"] > each["null cramer high"] for each in found]) <= 0.25
    assert all((each["cramer"] > each["null cramer high"]) == (each["p cramer"] <= 0.05) for each in found)
    planted = how(rows())
    assert planted["null cramer"] < planted["null cramer high"] < planted["cramer"]
    assert planted["p cramer"] < 0.01


def test_a_yes_or_no_names_at_most_two_directions():
    """Of four directions one always refuses, one never, two by chance: what is told is the first two, and no more."""
    shares = {"always": 1.0, "never": 0.0, "half": 0.5, "other half": 0.5}
    generator = np.random.default_rng(0)
    table = [
        (f"p{prompt}", name, "refused" if generator.random() < share else "not")
        for prompt in range(100)
        for name, share in shares.items()
    ]
    found = Wording(pd.DataFrame(table, columns=["id", "direction", "outcome"])).guess_direction("outcome")
    assert found.accuracy == found.high == 2 / 4


def test_dependence_holds_the_prompt_fixed():
    """A value that the prompt decides alone says nothing about the direction, however uneven the prompts are."""
    prompts = np.repeat(np.arange(40), 3)
    frame = pd.DataFrame(
        {"id": prompts, "direction": list(WORDINGS) * 40, "value": np.where(prompts < 20, "yes", "no")}
    )
    found = Wording(frame).dependence("value", n_draws=50)
    assert found["bits"] == pytest.approx(0, abs=1e-9)
    assert found["p"] == 1


def test_association_is_that_of_scipy_and_sklearn():
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"id": range(300), "direction": generator.choice(list("abc"), 300)})
    frame["value"] = np.where(generator.random(300) < 0.5, frame["direction"], generator.choice(list("vwxyz"), 300))
    found, table = (
        Wording(frame).dependence("value", n_draws=5),
        pd.crosstab(frame["direction"], frame["value"]).to_numpy(),
    )
    assert found["bits"] == pytest.approx(mutual_info_score(frame["direction"], frame["value"]) / np.log(2))
    assert found["cramer"] == pytest.approx(association(table, "cramer"))
    assert Wording(frame.assign(value="same")).dependence("value", n_draws=5)[["bits", "cramer"]].abs().max() < 1e-9
    assert Wording(frame.assign(direction="a")).dependence("value").drop("n").isna().all()  # nothing to compare


def test_the_text_gives_the_direction_away_or_it_does_not():
    planted = rows()[lambda frame: frame["outcome"] == "refused"]
    found = Wording(planted).guess_direction("response")
    assert found.accuracy == 1
    assert found.low > 0.9
    none = rows(own_wording=False, n=100)[lambda frame: frame["outcome"] == "refused"]
    guess = Wording(none).guess_direction("response")
    assert guess.low < max(guess.chance, 1 / 3) + 0.03
    again = Wording(pd.concat([none] * 3)).guess_direction("response")  # the same prompts again tell nothing new
    assert again.high - again.low > 0.8 * (guess.high - guess.low)
    for few in (planted[planted["id"].isin(["p0", "p1"])], planted[planted["direction"] == "first"]):
        assert Wording(few).guess_direction("response").drop("n").isna().all()


def test_a_direction_with_one_refusal_is_guessed_without_failing():
    """Its refusal is in one fold, so the classifier of that fold has seen the other direction alone."""
    planted = rows(refused=1.0, n=20)
    few = planted[(planted["direction"] == "first") | ((planted["direction"] == "second") & (planted["id"] == "p3"))]
    found = Wording(few).guess_direction("response")
    assert found.accuracy == pytest.approx(20 / 21)
    assert found.chance == pytest.approx(20 / 21)


def test_one_stock_refusal_has_nothing_to_tell_about_how():
    planted = rows(refused=0.7).assign(response="I'm sorry, but I can't assist with that.", release_type="UNSPEC")
    planted["styles"] = [("apology", "inability")] * len(planted)
    swept = Wording.of(Sweep(planted))
    for column in ("wording", "release_type"):
        found = swept.of_refusals().dependence(column, n_draws=20)
        assert found[["bits", "cramer", "null cramer", "null cramer high"]].abs().max() < 1e-9
        assert found["p cramer"] == 1
    guess = swept.of_refusals().guess_direction("response")
    assert guess.accuracy <= guess.chance + 0.01
    assert swept.shares().spread().max() == 0
    assert (swept.purity()["purity"] == 1).all()
    said = swept.summary()
    assert "1 wordings and 1 texts" in said
    assert said.endswith("makes up 100%, text 100%")
    assert Wording(swept.rows.assign(outcome="answered")).summary() == "nothing is refused"


def test_guesses_are_bars_with_their_intervals():
    numbers = {"text, same rate": (0.7, 0.6, 0.8, 0.1), "outcome": (0.1, 0.05, 0.2, 0.1)}
    names = ["accuracy", "low", "high", "chance"]
    guesses = Guesses({name: pd.Series(each, names) for name, each in numbers.items()})
    assert guesses.table().loc["outcome"].tolist() == [0.1, 0.05, 0.2, 0.1]
    (bars,) = guesses.figure(title="t", marks={"chance": 0.1}).data
    assert list(bars.x) == ["text,<br>same rate", "outcome"]
    assert list(bars.y) == [0.7, 0.1]
    assert list(bars.error_y.array) == pytest.approx([0.1, 0.1])


def test_style_shares_are_shares_of_refusals_with_wilson_intervals():
    planted = rows()
    shares = Wording(planted).shares()
    table = shares.values
    n = int(((planted["direction"] == "second") & (planted["outcome"] == "refused")).sum())
    assert table.loc[("second", "apology"), "share"] == 1
    assert table.loc[("second", "apology"), "low"] == pytest.approx(wilson(n, n)[0])
    assert table.loc[("first", "apology"), "share"] == 0
    assert shares.table().loc["second", "apology"] == shares.spread()["apology"] == 1
    (drawn,) = shares.figure(title="t").data
    assert drawn.z.shape == (3, len(STYLES))
    assert drawn.customdata[1][STYLES.index("apology")] == table.loc[("second", "apology"), "interval"]
    silent = Wording(
        planted.assign(outcome=planted["outcome"].mask(planted["direction"] == "first", "answered"))
    ).shares()
    assert silent.table().loc["first"].isna().all()
    assert silent.values.loc[("first", "apology"), "interval"] == "no refusals"
    pd.testing.assert_frame_equal(silent.values.drop("first"), table.drop("first"))
    assert silent.spread()["apology"] == 1  # over the directions that refuse
    assert len(silent.figure(title="t").data) == 1


def test_purity_is_the_share_of_the_commonest_type():
    mixed = rows(own_wording=False)
    refused = mixed[(mixed["outcome"] == "refused") & (mixed["direction"] == "first")]["release_type"]
    found = Wording(mixed).purity().loc["first"]
    assert found["dominant"] == refused.mode()[0]
    assert found["purity"] == pytest.approx((refused == refused.mode()[0]).mean())


def write_sweep(path, model, refusing):
    """A file of a sweep that nobody ran: eleven wordings; `refusing` has the rate of each direction and strength."""
    generator = np.random.default_rng(0)
    table = [
        {
            "id": f"p{prompt}",
            "text": f"Prompt {prompt}?",
            "harmful": prompt % 2 == 0,
            "direction": name,
            "gaps": gaps,
            "outcome": "refused" if refused else "answered",
            "response": f"I cannot help with {name}." if refused else "Take a kettle.",
            "release_type": "GENERIC" if refused else "NONREFUSAL",
        }
        for (name, gaps), rate in refusing.items()
        for prompt in range(30)
        for refused in [generator.random() < rate]
    ]
    save_rows(path, pd.DataFrame(table), {"model": model, "fingerprint": "abc", "layer": 2, "pos": -1})


def run_notebook_08(model, folder):
    """What the names of notebook 08 stand for after its cells."""
    space = {"display": print}
    for cell in read_cells(find_notebooks(["08"])[0]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and "google.colab" not in source:
            exec(compile(source, cell["id"], "exec"), space)
        if "parameters" in cell["metadata"].get("tags", ()):
            space |= {"MODEL": model, "N_DRAWS": 20, "FIGURES_DIR": str(folder), "CACHE_DIR": str(folder)}
    return space


def test_notebook_08_reads_any_models_responses_without_the_model_and_refuses_another_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "chrome", lambda: None)
    swept = {(name, 1.0): 0.5 + 0.04 * number for number, name in enumerate(CATEGORY_IDS)}
    swept |= {(name, 0.5): 0.3 for name in CATEGORY_IDS}
    swept["advice", 0.77] = 0.9  # a strength that only one direction was given: nothing to compare there
    for model in ("some/tiny", "other/tiny"):  # under the other model's name, a file that belongs to the first
        write_sweep(tmp_path / f"07_sweep_{cache_key(model)}.jsonl.gz", "some/tiny", swept)
        matched = {(name, 1.2): 0.9 for name in CATEGORY_IDS}
        write_sweep(tmp_path / f"07_matched_{cache_key(model)}.jsonl.gz", "some/tiny", matched)
    with pytest.raises(AssertionError, match="responses of other/tiny"):
        run_notebook_08("other/tiny", tmp_path)
    space = run_notebook_08("some/tiny", tmp_path)
    assert "chat" not in vars(space["study"])
    accuracy = space["guesses"].table()["accuracy"]
    assert accuracy["text of a refusal, same strength"] == 1
    assert 1 / 11 < accuracy["refused or not, same strength"] <= 2 / 11
    assert set(space["common"].rows["gaps"]) == {1.0}
    assert (tmp_path / "tiny" / "08_guess.csv").is_file()


def test_counts_are_those_of_the_refusals_alone():
    texts = ["No.", "No.", "I cannot.", "Yes."]
    planted = pd.DataFrame(
        {"response": texts, "outcome": ["refused"] * 3 + ["answered"], "wording": ["a", "a", "b", "c"]}
    )
    assert Wording(planted).counts() == {
        "refusals": 3, "wordings": 2, "texts": 2, "commonest wording": 2 / 3, "commonest text": 2 / 3,
    }  # fmt: skip


def test_wordings_are_those_of_the_judged_rows_by_their_phrases():
    texts = ["I'm sorry, but I can't assist with that.", "Boil it for six minutes.", "Je ne peux pas."]
    outcomes = ["refused", "answered", "not judged"]
    found = Wording.of(Sweep(pd.DataFrame({"response": texts, "outcome": outcomes}), {"layer": 2}))
    assert found.rows["response"].tolist() == texts[:2]
    assert found.rows["refused"].tolist() == ["refused", "not"]
    assert found.rows["wording"].tolist() == [" + ".join(styles) for styles in found.rows["styles"]]
    assert "apology" in found.rows["styles"].iloc[0]
    assert found.notes == {"layer": 2}


def test_shares_list_the_categories_first_in_their_order():
    names = [CATEGORY_IDS[2], "random 0", CATEGORY_IDS[0], "pooled"]
    frame = pd.DataFrame({"direction": names, "outcome": "refused", "styles": [("apology",)] * 4})
    assert list(Wording(frame).shares().table().index) == [CATEGORY_IDS[0], CATEGORY_IDS[2], "pooled", "random 0"]
