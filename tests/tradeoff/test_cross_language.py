"""One language's direction on another's prompts, on made-up responses and on a model."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from refusal_utils.geometry.parallel import ParallelStates
from refusal_utils.prompts.languages import load_languages
from refusal_utils.steering import first_token_logits
from refusal_utils.steering.conditions import ablation_condition, steering_condition
from refusal_utils.steering.first_tokens import refusal_logit
from refusal_utils.tradeoff.cross_language import RANDOM, CrossLanguage, cross_language
from refusal_utils.tradeoff.language_measures import likeness_to_refusals, openings_by_language, paired_auc

LANGUAGES, PAIRS = ("en", "xx"), [f"p{number:02}" for number in range(12)]
REFUSAL = {"en": "No, I will not do that.", "xx": "Ne, tion mi ne faros."}
TOPICS = ["soup", "boats", "winter", "clay", "tigers", "moon", "bread", "maths", "wind", "trains", "gold", "yarn"]


def made_up(own: float, other: float) -> CrossLanguage:
    """Scores of 2 on harmful prompts, which a direction changes by these amounts; the judge reads English only."""
    rows = []
    for language in LANGUAGES:
        for number, pair in enumerate(PAIRS):
            noise = number / 100
            for harmful in (True, False):
                text = REFUSAL[language] if harmful else f"{TOPICS[number]} {language} {TOPICS[number][::-1]}"
                outcome = (
                    "refused" if harmful and language == "en" else "answered" if language == "en" else "not judged"
                )
                rows.append((language, pair, harmful, "", "", text, outcome, 2 + noise if harmful else -2 + noise))
            for direction in (*LANGUAGES, RANDOM):
                change = {language: own, RANDOM: 0.0}.get(direction, other)
                text = REFUSAL[language] if change == 0 else TOPICS[number]
                rows.append((language, pair, True, direction, "ablated", text, "answered", 2 + change + 2 * noise))
                rows.append((language, pair, False, direction, "added", text, "answered", -2 - change + noise))
    columns = ["language", "pair_id", "harmful", "direction", "kind", "response", "outcome", "score"]
    frame = pd.DataFrame(rows, columns=columns)
    states = ParallelStates(LANGUAGES, torch.randn(2, 12, 8), torch.randn(2, 12, 8))
    frame = frame.assign(
        likeness=likeness_to_refusals(frame), refused=frame["outcome"].map({"refused": 1.0, "answered": 0.0})
    )
    return CrossLanguage(states, dict.fromkeys(LANGUAGES, (" No",)), frame)


def test_the_matrix_has_the_mean_change_by_direction_and_language_with_its_interval():
    found = made_up(-4.0, -1.0)
    noise = np.arange(12) / 100  # of the change
    expected = pd.DataFrame([[-4, -1], [-1, -4], [0, 0]], [*LANGUAGES, RANDOM], list(LANGUAGES)) + noise.mean()
    np.testing.assert_allclose(found.table(), expected, atol=1e-9)
    np.testing.assert_allclose(found.table("added"), -(expected - noise.mean()), atol=1e-9)
    row = found.effects(n_draws=4000).loc[("en", "xx")]
    half = 1.96 * noise.std() / 12**0.5
    assert (row["low"], row["high"]) == (
        pytest.approx(row["change"] - half, abs=0.003),
        pytest.approx(row["change"] + half, abs=0.003),
    )


def test_the_summary_counts_the_cells_that_surely_change():
    summary = made_up(-4.0, -1.0).summary()
    assert summary.loc[("ablated", "own")].tolist() == [pytest.approx(-4 + 0.055), 2, 0, 2]
    assert summary.loc[("ablated", "other")].tolist() == [pytest.approx(-1 + 0.055), 2, 0, 2]
    assert summary.loc[("added", "own"), ["below", "above"]].tolist() == [0, 2]
    assert summary.loc[("added", RANDOM)].tolist() == [0, 0, 0, 2]


def test_what_the_english_judge_cannot_see_is_seen_by_score_and_likeness():
    found = made_up(-4.0, -1.0)
    seen = found.languages()
    assert found.outcomes().loc[("en", "harmful")].to_dict() == {
        "refused": 12, "answered": 0, "broken": 0, "not judged": 0,
    }  # fmt: skip
    assert (found.outcomes().xs("xx")["not judged"] == 12).all()
    judged = found.effects(of="refused").xs("xx", level="prompts")
    assert judged["change"].isna().all()
    assert (judged["n"] == 0).all()
    assert found.table(of="refused").loc["en", "en"] == -1
    assert (seen[["AUC of score", "AUC of likeness"]] == 1).all(axis=None)
    changes = found.table(of="likeness")
    assert (changes.loc[list(LANGUAGES)] < -0.3).all(axis=None)
    assert changes.loc[RANDOM].abs().max() < 0.05  # control: the same refusals


def test_changes_are_means_over_the_pairs_that_are_judged():
    found = made_up(-4.0, -1.0)
    one = (found.rows["pair_id"] == "p03") & (found.rows["language"] == "en") & (found.rows["kind"] == "")
    found.rows.loc[one, "refused"] = 0.0
    found.rows.loc[(found.rows["pair_id"] == "p05") & (found.rows["kind"] == "ablated"), "refused"] = np.nan
    row = found.effects(of="refused").loc[("en", "en")]
    assert (row["n"], row["change"]) == (11, pytest.approx(-10 / 11))
    assert -1 <= row["low"] < row["change"] < row["high"] < 0


def test_aucs_are_those_of_sklearn_and_their_intervals_narrow_with_more_pairs():
    draw = np.random.default_rng(0)
    sides = np.stack([draw.normal(size=40), draw.normal(size=40) + 1], axis=1).round(1)  # with ties
    auc, low, high = paired_auc(sides, 2000)
    assert auc == pytest.approx(roc_auc_score([0] * 40 + [1] * 40, sides.T.ravel()))
    assert low < auc < high
    _, narrow_low, narrow_high = paired_auc(np.tile(sides, (9, 1)), 2000)
    assert (narrow_high - narrow_low) / (high - low) == pytest.approx(1 / 3, abs=0.05)
    assert np.isnan(paired_auc(np.full((8, 2), np.nan), 10)).all()


def test_likeness_leaves_out_the_own_pair_and_other_languages():
    """Texts of one letter each: any two are the same, or have nothing in common."""
    harmful, twins = ["aaaa", "aaaa", "bbbb", "bbbb"], ["cccc", "aaaa", "cccc", "dddd"]
    texts = [*zip([True] * 4, "0123", harmful, strict=True), *zip([False] * 4, "0123", twins, strict=True)]
    rows = pd.DataFrame(texts, columns=["harmful", "pair_id", "response"]).assign(kind="", language="en")
    steered = pd.DataFrame({"pair_id": ["1", "2", "0"], "response": ["bbbb", "cccc", ""], "kind": "ablated"})
    others = rows.assign(language="xx", response="aaaa")
    both = pd.concat([others, rows, steered.assign(harmful=True, language="en")], ignore_index=True)
    found = 3 * likeness_to_refusals(both)  # three other pairs
    assert found.iloc[:8].tolist() == pytest.approx([0] * 8)
    assert found.iloc[8:12].tolist() == pytest.approx([1 - 1, 1 - 0, 1 - 0, 1 - 0])
    assert found.iloc[12:16].tolist() == pytest.approx([0 - 1, 1 - 0, 0 - 1, 0 - 0])
    assert found.iloc[16:].tolist() == pytest.approx([2 - 0, 0 - 1, 0 - 0])


def test_an_opening_that_occurs_once_or_opens_answers_too_is_no_sign_of_a_refusal(chat):
    given = {True: ["I can't", "I won't", "Sorry, no", "Sure, I", "Sure, here"], False: ["Sure, I"] * 5}
    rows = pd.DataFrame(
        [(side, text) for side, texts in given.items() for text in texts], columns=["harmful", "response"]
    )
    found = openings_by_language(chat, rows.assign(language="en"))
    assert found == {"en": chat.tokenizer("I", add_special_tokens=False)["input_ids"][:1]}


@pytest.fixture(scope="module")
def found(chat) -> CrossLanguage:
    prompts = load_languages(languages=["en", "de"])
    return cross_language(chat, prompts, max_new_tokens=4)


def test_scores_are_those_of_a_direction_from_the_other_pairs(chat, found):
    prompts = load_languages(languages=["en", "de"])
    own = prompts[prompts["harmful"] & (prompts["language"] == "en")]
    tokens = torch.tensor(
        [chat.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in found.openings["en"]]
    )
    directions = found.states.directions(_place(chat), torch.arange(15)[torch.arange(15) % 2 != 0])
    logits = first_token_logits(chat, [own["text"].iloc[2]], ablation_condition(directions, "de"))
    rows = found.rows.set_index(["kind", "direction", "language", "pair_id"])
    score = rows.loc[("ablated", "de", "en", own["pair_id"].iloc[2]), "score"]
    assert score == pytest.approx(float(refusal_logit(logits.double(), tokens)), abs=1e-3)


def test_a_direction_is_added_once_its_gap_to_the_twins(chat, found):
    prompts = load_languages(languages=["en", "de"])
    twin = prompts[~prompts["harmful"] & (prompts["language"] == "en")].iloc[2]
    tokens = torch.tensor(
        [chat.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in found.openings["en"]]
    )
    directions = found.states.directions(_place(chat), torch.arange(1, 15, 2))
    logits = first_token_logits(chat, [twin["text"]], steering_condition(directions, "de", gaps=1.0))
    scores = found.rows.set_index(["kind", "direction", "language", "harmful", "pair_id"])["score"]
    added, before = (scores[kind, name, "en", False, twin["pair_id"]] for kind, name in (("added", "de"), ("", "")))
    assert added == pytest.approx(float(refusal_logit(logits.double(), tokens)), abs=1e-3)
    assert abs(added - before) > 0.1


def test_a_refusal_counts_one_and_any_other_text_nothing(found):
    outcome = found.rows["outcome"]
    assert {"refused", "answered"} <= set(outcome) <= {"refused", "answered", "broken"}
    assert found.rows["refused"].tolist() == [float(each == "refused") for each in outcome]


def test_every_prompt_has_a_response_under_every_direction_and_the_figure_shows_the_maps(found):
    counts = found.rows.groupby(["kind", "direction"]).size()
    assert counts.to_dict() == {("", ""): 60} | {
        (kind, name): 30 for kind in ("ablated", "added") for name in ("en", "de", RANDOM)
    }
    assert found.table().shape == (3, 2)
    bars = found.outcome_figure(title="Outcomes")
    assert sum(sum(bar.y) for bar in bars.data) == pytest.approx(4)  # two languages, two sides
    figure = found.figure(title="Across languages")
    assert len(figure.data) == 7
    row = found.effects().loc[("en", "de")]
    assert figure.data[0].text[0][1] == f"{row['low']:.2f} to {row['high']:.2f}"
    np.testing.assert_allclose(np.array(figure.data[0].z), found.table(), atol=1e-4)


def test_a_language_without_opening_tokens_has_no_score(chat):
    prompts = load_languages(languages=["en", "de"])
    prompts = prompts[prompts["pair_id"] <= "language-08"].reset_index(drop=True)
    found = cross_language(chat, prompts, tokens={"en": [5]}, max_new_tokens=1)
    assert found.table()["de"].isna().all()
    assert found.table()["en"].notna().all()
    assert np.isnan(found.languages().loc["de", "AUC of score"])


def test_prompts_that_are_not_parallel_or_too_few_are_refused(chat):
    prompts = load_languages(languages=["en", "de"])
    with pytest.raises(ValueError, match="^cross_language: prompts must be parallel"):
        cross_language(chat, prompts.sample(frac=1, random_state=0))
    swapped = prompts.copy()
    swapped.loc[swapped.index[-15:-13], "pair_id"] = swapped["pair_id"].iloc[[-14, -15]].to_numpy()
    with pytest.raises(ValueError, match="^cross_language: prompts must be parallel"):
        cross_language(chat, swapped)
    few = prompts[prompts["pair_id"] <= "language-07"]
    with pytest.raises(
        ValueError, match="^cross_language: there must be at least 8 pairs, half for the directions; got 7"
    ):
        cross_language(chat, few)


def _place(chat):
    from refusal_utils.directions import Provenance

    return Provenance(chat.decision_layer, chat.decision_pos)
