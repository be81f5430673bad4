"""The search over subsets: all are tried if few, Optuna finds nearly the best, and the scores are plain ones."""

import numpy as np
import pytest
import torch

from refusal_utils.directions import DirectionSet, Provenance, normalize
from refusal_utils.methods.subset_search import search_subset
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.steering import first_token_logits
from refusal_utils.steering.conditions import ablation_condition
from refusal_utils.steering.first_tokens import kl_spent, refusal_logit

TOKENS = [5, 9]


@pytest.fixture(scope="module")
def asked(chat):
    vectors = normalize(torch.randn(6, chat.d_model, generator=torch.Generator().manual_seed(0)))
    directions = DirectionSet(tuple(f"som_{number}" for number in range(1, 7)), vectors, torch.ones(6), Provenance(3))
    return directions, *(list(load_prompts(name, "eval")["text"].head(3)) for name in ("advice", "benign")), TOKENS


@pytest.fixture(scope="module")
def every(chat, asked):
    return search_subset(chat, *asked, k=2, max_kl=0.5)


def test_all_ordered_pairs_are_tried_and_the_scores_are_plain_ones(chat, asked, every):
    directions, harmful, benign, _ = asked
    assert len(every.rows) == 30
    row = every.rows[every.rows["names"] == "som_4, som_2"].iloc[0]
    condition = ablation_condition(directions, "som_4", "som_2", in_turn=True)
    logits = first_token_logits(chat, harmful, condition).double()
    assert row["score"] == pytest.approx(float(refusal_logit(logits, torch.tensor(TOKENS)).mean()), abs=1e-3)
    assert row["kl"] == pytest.approx(float(kl_spent(chat, benign, [condition])[0]), abs=1e-4)
    assert every.condition.direction == ", ".join(every.best)


def test_the_best_is_the_lowest_score_within_the_budget_or_else_the_cheapest(chat, asked, every):
    within = every.rows[every.rows["kl"] <= 0.5]
    assert len(within) > 0
    assert every.table()["score"].iloc[0] == within["score"].min()
    none = search_subset(chat, *asked, k=1, max_kl=1e-9)
    assert not none.rows["within"].any()
    assert none.table()["kl"].iloc[0] == none.rows["kl"].min()
    assert len(every.figure(title="Subsets").data) >= 1


def test_optuna_finds_nearly_the_best_of_all_with_fewer_trials_and_repeats_itself(chat, asked, every):
    found, again = (search_subset(chat, *asked, k=2, max_kl=0.5, n_trials=24) for _ in range(2))
    assert len(found.rows) <= 24 < 30
    assert found.rows["names"].tolist() == again.rows["names"].tolist()
    ranked = every.table()["names"].tolist()
    assert ranked.index(", ".join(found.best)) < 5
    same = every.rows.set_index("names").loc[found.rows["names"], "score"]
    np.testing.assert_allclose(found.rows["score"], same, atol=1e-3)


def test_spans_are_tried_once_whatever_their_order(chat, asked):
    found = search_subset(chat, *asked, k=5, in_turn=False)
    assert len(found.rows) == 6
    with pytest.raises(ValueError, match="^search_subset: k must be from 1 to the number of directions, 6; got 7"):
        search_subset(chat, *asked, k=7)
