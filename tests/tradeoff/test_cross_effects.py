"""What ablating one direction does to the refusals of other categories, on made-up and on real responses."""

import pandas as pd
import pytest
import torch

from refusal_utils.directions.direction_set import DirectionSet, Provenance
from refusal_utils.directions.estimation import random_directions
from refusal_utils.prompts.loading import load_prompts
from refusal_utils.steering.conditions import UNSTEERED, ablation_condition
from refusal_utils.steering.first_tokens import kl_spent
from refusal_utils.steering.responses import respond
from refusal_utils.tradeoff.cross_effects import CLUSTER, CrossEffects, ablation_effects, cross_effects

POLICY, CANNOT = (
    [name for name, kind in CLUSTER.items() if kind == cluster][:2] for cluster in dict.fromkeys(CLUSTER.values())
)


def made_up(own: float, other: float, n: int = 40) -> CrossEffects:
    """All is refused unsteered; a direction takes these shares of its own and of the other cluster's refusals."""
    rows = []
    for direction in ("", *POLICY, *CANNOT):
        for category in (*POLICY, *CANNOT):
            share = 0.0 if not direction else own if CLUSTER[direction] == CLUSTER[category] else other
            for number in range(n):
                outcome = "answered" if number < share * n else "refused"
                rows.append((direction, category, f"{category}-{number}", outcome))
    return CrossEffects(pd.DataFrame(rows, columns=["direction", "category", "id", "outcome"]))


def test_clusters_that_fall_separately_differ_and_those_that_fall_together_do_not():
    apart, together = made_up(0.8, 0.1), made_up(0.5, 0.5)
    assert apart.table().loc[POLICY[0]].to_dict() == pytest.approx(
        dict.fromkeys(POLICY, -0.8) | dict.fromkeys(CANNOT, -0.1) | {"not judged": 0}
    )
    difference = apart.by_cluster(200).xs("own minus other", level="prompts")
    assert difference["change"].to_list() == pytest.approx([-0.7, -0.7])
    assert (difference["high"] < 0).all()
    level = together.by_cluster(200).xs("own minus other", level="prompts")
    assert level["change"].to_list() == pytest.approx([0, 0])
    assert ((level["low"] <= 0) & (level["high"] >= 0)).all()


def test_what_is_not_judged_counts_in_no_rate():
    found = made_up(0.5, 0.5, n=4)
    rows = found.rows.copy()
    rows.loc[(rows["direction"] == POLICY[0]) & (rows["id"] == f"{POLICY[0]}-0"), "outcome"] = "not judged"
    changed = CrossEffects(rows)
    assert changed.rates().loc[POLICY[0], POLICY[0]] == pytest.approx(2 / 3)
    assert changed.table()["not judged"].to_dict() == {POLICY[0]: 1, POLICY[1]: 0, CANNOT[0]: 0, CANNOT[1]: 0}
    assert "not judged" not in changed.figure(title="").data[0].x
    everywhere = CrossEffects(rows[rows["id"] != f"{POLICY[0]}-0"])
    assert changed.by_cluster(50).equals(everywhere.by_cluster(50))


def test_without_the_diagonal_a_directions_own_category_does_not_count():
    """A direction takes all refusals of its own category, half of its cluster's other one and none beyond."""
    rows = made_up(0.5, 0.0, n=20).rows
    rows.loc[rows["direction"] == rows["category"], "outcome"] = "answered"
    found = CrossEffects(rows)
    clusters = [CLUSTER[POLICY[0]], CLUSTER[CANNOT[0]]]
    for diagonal, own in ((True, -0.75), (False, -0.5)):
        changes = found.by_cluster(20, diagonal=diagonal)["change"]
        assert [changes[each, each] for each in clusters] == pytest.approx([own, own])
        assert [changes[each, "own minus other"] for each in clusters] == pytest.approx([own, own])
        assert changes[clusters[0], clusters[1]] == changes[clusters[1], clusters[0]] == 0


def test_categories_come_in_their_usual_order_and_unknown_ones_last():
    rows = made_up(0.5, 0.5, n=2).rows.replace({"category": {POLICY[1]: "new"}}).iloc[::-1]
    assert list(CrossEffects(rows).table()) == [POLICY[0], *CANNOT, "new", "not judged"]


def test_the_interval_is_that_of_a_plain_bootstrap():
    found = made_up(0.8, 0.1)
    row = found.by_cluster(4000).iloc[0]
    draw = torch.Generator().manual_seed(3)
    plain = torch.stack([(torch.rand(2000, 40, generator=draw) < 0.8).double().mean(1) for _ in range(2)]).mean(0)
    low, high = (-float(plain.quantile(share)) for share in (0.975, 0.025))
    assert (row["low"], row["high"]) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))


def test_rows_are_the_responses_under_each_ablation(chat):
    prompts = pd.concat([load_prompts(name, "eval").head(2) for name in (POLICY[0], CANNOT[0])])
    names = (POLICY[0], CANNOT[0])
    directions = DirectionSet(names, random_directions(2, chat.d_model), torch.ones(2), Provenance(4))
    conditions = [ablation_condition(directions, name) for name in names]
    found = cross_effects(chat, prompts, conditions, max_new_tokens=6)
    alone = respond(chat, prompts, [conditions[1]], max_new_tokens=6)
    same = found.rows[found.rows["direction"] == CANNOT[0]]
    assert same["response"].tolist() == alone["response"].tolist()
    assert found.rates().drop(columns="not judged").loc[""].to_dict() == {
        name: pytest.approx(float((rows["outcome"] == "refused").mean()))
        for name, rows in respond(chat, prompts, [UNSTEERED], max_new_tokens=6).groupby("category")
    }
    assert found.figure(title="Changes").data[0].z.shape == (2, 2)
    benign = list(load_prompts("benign", "eval")["text"].head(4))
    equal = ablation_effects(chat, prompts, directions, benign, budget=1e-4, max_new_tokens=6)
    assert list(equal.nats.index) == list(names)
    assert equal.nats.to_numpy() == pytest.approx(equal.nats.mean(), rel=0.05)
    assert set(equal.rows["direction"]) == {"", *names}
    whole = kl_spent(chat, benign, conditions)  # before control: in full they cost more, and not the same
    assert equal.nats.max() <= 1.02 * min(1e-4, float(whole.min()))
    with pytest.raises(
        ValueError, match="^cross_effects: every condition must have a direction of its own; got 2 for 1"
    ):
        cross_effects(chat, prompts, [conditions[0], conditions[0]])
