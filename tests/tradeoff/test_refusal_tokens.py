"""Thresholds on first tokens: planted scores, and responses on the bundled model."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score

from refusal_utils.judging import Judgement
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.prompts.twins import contrast_pairs
from refusal_utils.stats import wilson
from refusal_utils.steering.control_tokens import ControlTokens, OpeningProxy
from refusal_utils.steering.responses import respond
from refusal_utils.tradeoff.refusal_tokens import ForcedResponses, f1_scores, force_first_tokens

N = 40


def planted(kind="control tokens", obeys=1.0):
    """Pairs of two categories whose scores tell prompts from twins, mostly; `obeys` is the share that follow it."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"pair": [*range(N)] * 2, "harmful": [True] * N + [False] * N})
    rows["id"], rows["text"] = [f"p{index}" for index in rows.index], "text"
    rows["category"] = ["advice", "hate_speech"] * N
    rows["score"] = rng.normal(np.where(rows["harmful"], 1.5, -1.5), 1.0)
    rows["own_refuses"], rows["probability"] = rows["score"] > 0, 1 / (1 + np.exp(-rows["score"]))
    rows["named"] = rows["category"]
    follows = rng.random(2 * N) < obeys
    rows["after refusing"] = np.where(follows, "refused", "answered")
    rows["after answering"] = np.where(follows, "answered", "refused")
    for after in ("after refusing", "after answering"):
        rows[f"response {after}"] = rows[after] + " text"
    return ForcedResponses(kind, rows)


def test_f1_is_that_of_scikit_learn_for_every_weighting():
    generator = torch.Generator().manual_seed(0)
    own, twin = torch.rand(30, generator=generator) < 0.8, torch.rand(30, generator=generator) < 0.3
    weights = torch.randint(0, 3, (5, 30), generator=generator).double()
    truth, said = [1] * 30 + [0] * 30, torch.cat([own, twin]).int().numpy()
    expected = [f1_score(truth, said, sample_weight=np.tile(each, 2)) for each in weights.numpy()]
    np.testing.assert_allclose(f1_scores(weights, own, twin), expected)


def test_f1_is_that_of_the_prompts_themselves_within_the_interval_of_its_draws():
    forced = planted()
    found = forced.table(n_draws=200).loc["all"]
    expected = f1_score(forced.rows["harmful"], forced.rows["own_refuses"])
    assert found["F1"] == pytest.approx(expected)
    assert found["F1 low"] < expected < found["F1 high"]


def test_a_threshold_moves_its_own_category_only_from_all_refused_to_none():
    forced = planted()
    table = forced.thresholds([0.0, 0.5, 1.01], n_draws=10)
    own = forced.table(n_draws=10)
    assert table.loc[("advice", 0.0), "refused"] == table.loc[("advice", 0.0), "twins refused"] == 1.0
    assert table.loc[("advice", 1.01), "refused"] == table.loc[("advice", 1.01), "F1"] == 0.0
    assert table.loc[("advice", 0.5), "F1"] == own.loc["advice", "F1"]
    for name, other in (("hate_speech", "advice"), ("advice", "hate_speech")):
        named = forced.rows.assign(named=other)
        others = ForcedResponses(forced.kind, named).thresholds([0.0, 1.01], n_draws=10).loc[name]
        assert (others["refused"] == own.loc[name, "refused"]).all()
    proxy = ForcedResponses("proxy", named).thresholds([0.0], n_draws=10)
    assert proxy.loc[("advice", 0.0), "refused"] == 1.0


def test_the_figure_has_a_line_for_every_category_and_none_for_all():
    lines = planted().figure([0.0, 0.5, 1.01], title="Thresholds").data
    assert sorted(line.name for line in lines) == ["Hate speech", "Unqualified advice"]
    assert all(line.y[1] > line.y[0] > line.y[2] for line in lines)


def test_biases_turn_the_knob_from_nearly_none_to_nearly_all():
    forced = planted()
    levels = forced.biases(9)
    swept = forced.biased(levels)
    rates = (swept["outcome"] == "refused").groupby(swept["gaps"]).mean()
    assert rates.is_monotonic_increasing
    assert rates.iloc[0] < 0.05
    assert rates.iloc[-1] > 0.95
    assert (swept["direction"] == "control tokens").all()
    assert (swept["response"] == swept["outcome"] + " text").all()


def test_words_that_do_not_follow_the_token_are_counted():
    assert (planted().forcing()["share"] == 0).all()
    found = planted(obeys=0.5).forcing()
    assert (found["low"] < found["share"]).all()
    assert found["share"].between(0.2, 0.9).all()


def test_the_shares_that_do_not_follow_are_those_counted_by_hand():
    """Four prompts refuse by themselves, three of them after either token; of three that answer one always answers."""
    cases = [(True, "refused", "refused")] * 3 + [(True, "refused", "answered"), (False, "answered", "answered")]
    cases += [(False, "refused", "answered"), (False, "broken", "answered")]
    found = ForcedResponses("proxy", pd.DataFrame(cases, columns=["own_refuses", "after refusing", "after answering"]))
    table = found.forcing()
    assert table["n"].tolist() == [4, 3]
    assert table["share"].tolist() == pytest.approx([3 / 4, 1 / 3])
    assert table[["low", "high"]].to_numpy().tolist() == [list(wilson(3, 4)), list(wilson(1, 3))]
    obedient = ForcedResponses("proxy", found.rows.tail(3)).forcing()
    assert obedient["n"].tolist() == [0, 3]
    assert obedient.iloc[0].drop("n").isna().all()


def test_a_threshold_counts_itself():
    forced = planted()
    level = float(forced.rows["probability"].median())
    rows = forced.rows.assign(probability=level)
    at, above = (ForcedResponses("proxy", rows).thresholds([each], n_draws=10) for each in (level, level + 1e-9))
    assert (at["refused"] == 1).all()
    assert (above["refused"] == 0).all()


def test_biases_move_the_share_of_forced_refusals_in_equal_steps():
    forced = planted()
    levels = forced.biases(9)
    assert levels == sorted(levels)
    shares = [float((forced.rows["score"] + level >= 0).mean()) for level in levels]
    assert shares == pytest.approx([0.02 + 0.12 * step for step in range(9)], abs=1 / len(forced.rows))


def test_fifths_of_the_score_have_the_shares_and_intervals_of_their_prompts():
    forced = planted()
    rows = forced.rows.sort_values("score")
    table = forced.calibration()
    for number, own in enumerate(np.array_split(rows.to_numpy(), 5), start=1):
        own = pd.DataFrame(own, columns=rows.columns)
        n = int(own["harmful"].sum())
        assert table.loc[number, "share"] == pytest.approx(n / 16)
        assert table.loc[number, ["low", "high"]].tolist() == pytest.approx(list(wilson(n, 16)))
        assert table.loc[number, "probability"] == pytest.approx(own["probability"].astype(float).mean())


def test_a_pair_with_a_response_that_is_not_judged_is_left_out(chat):
    pairs = contrast_pairs(load_prompts(split="eval"), 1)
    unread = pairs["text"].iloc[[3, 15]].tolist()  # a prompt of the fourth pair, a twin of the fifth

    def judge(prompt, response):
        return Judgement("no", unjudged="language" if prompt in unread else None)

    opening = OpeningProxy(torch.tensor([1]))
    found = force_first_tokens(chat, pairs, opening, max_new_tokens=1, judge=judge).rows
    kept = [number for number in range(11) if number not in (3, 4)]
    assert found["pair"].tolist() == kept * 2
    assert found["harmful"].tolist() == [True] * 9 + [False] * 9


def test_a_temperature_divides_the_score(chat):
    pairs = contrast_pairs(load_prompts(split="eval"), 1).groupby("harmful").head(2)
    tokens = ControlTokens({"a": 7}, 9)
    plain, hot = (
        force_first_tokens(chat, pairs, tokens, temperature=each, max_new_tokens=1).rows for each in (1.0, 2.0)
    )
    assert hot["score"].tolist() == pytest.approx((plain["score"] / 2).tolist())
    assert plain["score"].abs().min() > 0.01
    assert plain["named"].tolist() == ["a"] * 4


def test_calibration_and_auc_see_a_score_that_is_shuffled():
    forced = planted()
    table = forced.calibration()
    assert table["n"].tolist() == [2 * N // 5] * 5
    assert table["probability"].is_monotonic_increasing
    value, low, high = forced.auc(50)
    assert low <= value <= high
    shuffled = forced.rows.assign(score=forced.rows["score"].sample(frac=1, random_state=1).to_numpy())
    assert low > ForcedResponses("proxy", shuffled).auc(50)[0]


def test_forcing_the_models_own_token_changes_nothing(chat):
    """On the bundled model: its own first token leads to the response that it gives without being forced."""
    pairs = contrast_pairs(load_prompts(split="eval"), 1)
    opening = OpeningProxy(torch.tensor(chat.tokenizer(" I", add_special_tokens=False)["input_ids"][:1]))
    forced = force_first_tokens(chat, pairs, opening, max_new_tokens=12)
    unforced = respond(chat, pairs, max_new_tokens=13).set_index("id")["outcome"]
    own = forced.refused(forced.rows["own_refuses"])
    assert (own == (unforced.loc[forced.rows["id"]] == "refused").to_numpy()).all()
    assert forced.rows["pair"].tolist() == [*range(11)] * 2
    assert not forced.refused([False] * 22).equals(forced.refused([True] * 22))
    assert forced.figure([0.5], title="F1").layout.yaxis.title.text.startswith("F1")


def test_bad_input_is_one_sentence(chat):
    pairs = contrast_pairs(load_prompts(split="eval"), 1)
    with pytest.raises(ValueError, match="^force_first_tokens: temperature must be positive; got 0"):
        force_first_tokens(chat, pairs, ControlTokens({"a": 1}, 2), temperature=0.0)
    opening = OpeningProxy(torch.tensor([1]))
    few = pairs[pairs["pair"] == pairs["pair"].iloc[0]]
    with pytest.raises(ValueError, match="^force_first_tokens: at least two pairs must be left; got 1"):
        force_first_tokens(chat, few, opening, max_new_tokens=2)
