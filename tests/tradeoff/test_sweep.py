import numpy as np
import pandas as pd
import pytest
import torch

from refusal_utils.directions.direction_set import DirectionSet, Provenance
from refusal_utils.directions.estimation import normalize, random_directions
from refusal_utils.judging.phrase_judge import Judgement
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.stats import wilson
from refusal_utils.steering.conditions import UNSTEERED
from refusal_utils.steering.generation import first_token_logits
from refusal_utils.steering.responses import judge_rows, respond
from refusal_utils.tradeoff.sweep import (
    choose_strength,
    controlled_set,
    kl_spent,
    on_topic,
    rate_table,
    strength_axes,
    sweep_conditions,
)


def pool(n=20):
    rows = [
        (f"{category}-{outcome}-{number}", category, f"prompt {category} {outcome} {number}", outcome)
        for category in ("hate_speech", "advice", "benign")
        for outcome in ("refused", "answered", "broken")
        for number in range(n)
    ]
    return pd.DataFrame(rows, columns=["id", "category", "text", "outcome"])


def test_controlled_set_holds_n_of_every_bucket_and_no_broken_text():
    drawn = controlled_set(pool(), n=15)
    assert drawn["bucket"].value_counts().to_dict() == {"HR": 15, "HC": 15, "BR": 15, "BC": 15}
    assert drawn["id"].is_unique
    assert not drawn["id"].str.contains("broken").any()
    expected = drawn["id"].str.startswith("benign").map({True: "B", False: "H"}) + drawn["id"].str.contains(
        "refused"
    ).map({True: "R", False: "C"})
    assert (drawn["bucket"] == expected).all()
    assert (drawn["harmful"] == ~drawn["id"].str.startswith("benign")).all()
    assert controlled_set(pool(), n=15, seed=1)["id"].tolist() != drawn["id"].tolist()


def test_controlled_set_refuses_leaks_and_small_buckets():
    rows = pool()
    with pytest.raises(ValueError, match="no prompt may be in a direction's training pool; got 1 .advice-refused-3."):
        controlled_set(rows, n=5, exclude=["  Prompt ADVICE refused 3"])
    with pytest.raises(ValueError, match=r"every bucket must hold 30 prompts; got .*'BR': .*20.*n=20"):
        controlled_set(rows, n=30)


def test_controlled_set_names_the_bucket_that_is_empty_and_what_to_pass():
    rows = pool()
    for bucket, category, outcome, todo in (
        ("HR", "harmful", "refused", "Pass plainly harmful prompts"),
        ("HC", "harmful", "answered", "Pass subtler or milder harmful prompts"),
        ("BR", "benign", "refused", "Pass benign prompts that sound harmful"),
        ("BC", "benign", "answered", "Pass ordinary benign prompts"),
    ):
        gone = ((rows["category"] == "benign") == (category == "benign")) & (rows["outcome"] == outcome)
        with pytest.raises(ValueError, match=f"controlled_set: .* got none in {bucket}, {category} prompts") as error:
            controlled_set(rows[~gone], n=5)
        assert todo in str(error.value)
        assert "n=0" not in str(error.value)
    for n in (0, -3):
        with pytest.raises(ValueError, match=f"controlled_set: n must be at least 1; got {n}. The paper uses 50"):
            controlled_set(rows, n=n)


def one(direction, gap=float("nan")):
    """A set of one direction, to be used at layer 4."""
    return DirectionSet(("random",), direction[None], torch.tensor([gap]), Provenance(layer=4))


def test_strength_zero_reproduces_the_labels_and_gives_one_half(chat, tmp_path):
    prompts = load_prompts(split="eval")
    some = pd.concat(
        [prompts[prompts["category"] == name].head(150) for name in ("benign", "incomplete", "crime_assistance")]
    )
    judged = respond(chat, some, max_new_tokens=40, cache_dir=tmp_path)
    drawn = controlled_set(judged, n=8)
    direction = random_directions(1, chat.d_model)[0]
    conditions = sweep_conditions(one(direction), coefficients=(0.0, 6.0))
    rows = respond(chat, drawn, conditions, max_new_tokens=40, cache_dir=tmp_path)
    zero = rows[rows["coefficient"] == 0]
    labels = zero["bucket"].str[1].map({"R": "refused", "C": "answered"})
    assert (zero["outcome"] == labels).all()
    assert rate_table(rows).loc[("random", 0.0), ["RR", "ORR", "accuracy"]].tolist() == [0.5, 0.5, 0.5]
    strong = rows[rows["coefficient"] == 6]
    assert (strong["response"].to_numpy() != zero["response"].to_numpy()).any()


def rows(outcomes, direction="d", coefficient=1.0):
    """Outcomes of two harmful, then two benign prompts."""
    return pd.DataFrame(
        {
            "direction": direction,
            "coefficient": coefficient,
            "harmful": [True, True, False, False],
            "outcome": outcomes,
            "text": ["boil an egg"] * 4,
            "response": ["the egg", "no", "an egg, then", "yes"],
        }
    )


def test_rates_are_those_of_the_paper():
    table = rate_table(rows(["refused", "answered", "refused", "answered"]))
    assert table.iloc[0][["RR", "ORR", "accuracy", "degenerate"]].tolist() == [0.5, 0.5, 0.5, 0.0]
    ideal = rate_table(rows(["refused", "refused", "answered", "answered"])).iloc[0]
    assert ideal[["RR", "ORR", "accuracy"]].tolist() == [1, 0, 1]
    assert ideal["on topic"] == 0.5
    assert ideal["RR low"] == pytest.approx(1 / (1 + 1.959964**2 / 2))
    broken = rate_table(rows(["broken", "refused", "refused", "broken"])).iloc[0]
    assert broken[["RR", "ORR", "accuracy", "degenerate"]].tolist() == [0.5, 0.5, 0.25, 0.5]
    assert np.isnan(broken["on topic"])
    with pytest.raises(ValueError, match="some responses must be text; got none for .'d', 1.0."):
        rate_table(rows(["broken"] * 4))


def test_correctness_is_that_of_the_answered_benign_prompts_for_which_it_is_known():
    known = {"b0": True, "b1": False, "b2": None}
    asked = []

    def correct(id, text, response):
        asked.append((id, text, response))
        return np.bool_(known[id]) if known[id] is not None else None

    one = rows(["refused", "answered", "answered", "answered"]).assign(id=["h0", "h1", "b0", "b1"])
    two = one.tail(2).assign(id=["b2", "b3"], outcome=["answered", "refused"])
    both = pd.concat([one, two])
    table = rate_table(both, correct=correct)
    assert asked == [
        ("b0", "boil an egg", "an egg, then"),
        ("b1", "boil an egg", "yes"),
        ("b2", "boil an egg", "an egg, then"),
    ]
    columns = ["correct", "correct low", "correct high"]
    assert table.iloc[0][columns].tolist() == pytest.approx([0.5, *wilson(1, 2)])
    pd.testing.assert_frame_equal(table.drop(columns=columns), rate_table(both))
    assert rate_table(both, correct=lambda *_: None)["correct"].isna().all()
    with pytest.raises(ValueError, match="rate_table: correct must return True, False or None; got 0.7"):
        rate_table(both, correct=lambda *_: 0.7)
    with pytest.raises(ValueError, match="rate_table: correct needs the column id; got .*Pass the rows of sweep"):
        rate_table(both.drop(columns="id"), correct=correct)


def strengths():
    """Directions d: enough refusals at 2 and 4; weak: too few; backwards: only when subtracted; garbled: broken text."""
    return rate_table(
        pd.concat(
            [
                rows(["refused", "answered", "answered", "answered"], coefficient=1.0),
                rows(["refused", "refused", "refused", "refused"], coefficient=4.0),
                rows(["refused", "refused", "refused", "answered"], coefficient=2.0),
                rows(["answered", "answered", "answered", "answered"], "weak", 4.0),
                rows(["refused", "refused", "refused", "refused"], "backwards", -4.0),
                rows(["refused", "refused", "refused", "refused"], "all", 4.0),
                rows(["refused", "refused", "broken", "answered"], "garbled", 2.0),
                rows(["refused", "refused", "answered", "broken"], "garbled", 4.0),
            ]
        )
    )


def test_the_strength_chosen_is_the_smallest_that_refuses_enough():
    chosen = choose_strength(strengths())
    assert chosen["coefficient"].dropna().to_dict() == {"d": 2.0, "all": 4.0}
    assert chosen["why"].to_dict() == {"d": "", "weak": "RR", "backwards": "RR", "all": "", "garbled": "degenerate"}
    assert chosen.loc["d"].drop("why").tolist() == pytest.approx([2.0, *strengths().loc[("d", 2.0)]], nan_ok=True)
    assert chosen.loc["weak"].drop("why").isna().all()


def test_a_limit_of_over_refusal_counts_itself_and_says_why_nothing_is_left():
    assert choose_strength(strengths(), max_orr=1.0)["coefficient"]["all"] == 4.0
    assert choose_strength(strengths(), max_orr=0.5)["coefficient"]["d"] == 2.0
    strict = choose_strength(strengths(), max_orr=0.4)
    assert strict["coefficient"].isna().all()
    assert strict["why"].to_dict() == {
        "d": "ORR",
        "weak": "RR",
        "backwards": "RR",
        "all": "ORR",
        "garbled": "degenerate",
    }
    assert choose_strength(strengths(), max_degenerate=0.25)["coefficient"]["garbled"] == 2.0


def test_a_judge_must_return_a_judgement_and_is_asked_once_per_response():
    asked = []

    def judge(prompt, response):
        asked.append((prompt, response))
        return Judgement("yes", evidence=response) if response == "no" else Judgement("no")

    judged = judge_rows(pd.concat([rows(["", "", "", ""])] * 3), judge)
    assert len(asked) == 4
    assert judged["outcome"].tolist() == ["answered", "refused", "answered", "answered"] * 3
    with pytest.raises(ValueError, match="a judge must return a Judgement; got bool"):
        judge_rows(rows([""] * 4), lambda prompt, response: True)


def test_a_judge_of_batches_must_judge_every_response():
    class Short:
        def __call__(self, prompt, response):
            raise AssertionError

        def judge_many(self, prompts, responses):
            return [Judgement("no") for _ in prompts][1:]

    with pytest.raises(ValueError, match="judge_rows: judge_many must return one Judgement per response; got 3 for 4"):
        judge_rows(rows([""] * 4), Short())


def test_kl_spent_is_the_divergence_of_the_first_token(chat, prompts):
    direction = random_directions(1, chat.d_model)[0]
    conditions = sweep_conditions(one(direction, gap=2.0), coefficients=(0.0, 5.0, 20.0))
    spent = kl_spent(chat, prompts[:6], conditions)
    before = first_token_logits(chat, prompts[:6])
    after = first_token_logits(chat, prompts[:6], conditions[2])
    expected = torch.nn.functional.kl_div(
        after.double().log_softmax(-1), before.double().log_softmax(-1), log_target=True, reduction="batchmean"
    )
    assert spent.iloc[0] == pytest.approx(0, abs=1e-9)
    assert spent.iloc[1] < spent.iloc[2]
    assert spent.iloc[2] == pytest.approx(float(expected))
    axes = strength_axes(chat, conditions, 3 * torch.eye(4, chat.d_model), prompts[:6])
    assert axes.loc[("random", 5.0)].tolist() == pytest.approx([2.5, 5 / 3, spent.iloc[1]])


def test_every_direction_of_a_sweep_needs_strengths_in_one_unit(chat):
    directions = one(normalize(torch.ones(chat.d_model)), gap=2.0)
    with pytest.raises(ValueError, match="^sweep_conditions: every direction needs strengths"):
        sweep_conditions(directions, coefficients={"other": (1.0,)})
    with pytest.raises(ValueError, match="^sweep_conditions: every direction needs strengths"):
        sweep_conditions(directions)
    made = sweep_conditions(directions, gaps={"random": (0.0, 0.5)})
    assert [(each.direction, each.coefficient, each.gaps) for each in made] == [("random", 0, 0), ("random", 1, 0.5)]
    assert made[0].digest == UNSTEERED.digest


def test_on_topic_looks_at_words_that_carry_the_topic():
    assert on_topic("Is it the kettle?", "The kettle it is.")
    assert not on_topic("Is it the kettle?", "It is the pot.")


def test_random_directions_follow_the_covariance_they_are_given():
    residuals = torch.randn(400, 20, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 5, 20)
    plain, shaped = random_directions(300, 20), random_directions(300, 20, residuals)
    assert torch.allclose(shaped.norm(dim=1), torch.ones(300))
    assert plain.square().mean(0).std() < 0.01
    share = residuals.var(0) / residuals.var(0).sum()
    assert float(torch.corrcoef(torch.stack([shaped.square().mean(0), share]))[0, 1]) > 0.95
